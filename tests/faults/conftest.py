"""The tests of faults train what the tests of pretraining train."""

from tests.pretrain.conftest import shape, shape_file, shards

__all__ = ["shape", "shape_file", "shards"]
