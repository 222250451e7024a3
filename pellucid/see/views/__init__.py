"""What each page of the workbench shows, as plain data: one module a page, in the order of the tour."""
