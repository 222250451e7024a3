"""How every page is made: one file that loads nothing, forbids itself to, and shows foreign text as text.

Templates escape what they are given; data for scripts travels as JSON that cannot end its own element; the policy
(CSP) names the page's own script by its hash, so that nothing else would run even if it got in.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from markupsafe import Markup

from pellucid.runtime import printable

TEMPLATES = Path(__file__).parent / "templates"
WEB = Path(__file__).parent / "web"
MISSING = "–"
JOINED = "\N{NO-BREAK SPACE}"  # between a number and its unit


@cache
def environment() -> Environment:
    """Jinja with autoescape; what a report lacks is undefined all the way down, and shows as a dash."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"percent": percent, "number": number, "duration": duration, "script_json": script_json}
    env.filters |= {"visible": visible, "printable": lambda text: printable(str(text)), "exp": math.exp}
    env.globals |= {"style": inlined("style.css")}
    return env


def render(template: str, scripts: Sequence[str] = (), **values: Any) -> str:
    """The template as text; `scripts` names the modules of the workbench that it may run, in one script element."""
    code = joined(scripts)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    if scripts:
        policy += f"; script-src 'sha256-{digest}'"
    return environment().get_template(template).render(script=code, policy=Markup(policy), **values)


def inlined(name: str) -> Markup:
    """A file of ours, to stand in the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def joined(scripts: Sequence[str]) -> Markup:
    """Modules as one: each stands before those that import from it, so all names are there without the imports."""
    code = "\n".join((WEB / name).read_text(encoding="utf-8") for name in scripts)
    code = re.sub(r"^import [^;]*;\n", "", code, flags=re.MULTILINE)
    return Markup(re.sub(r"^export ", "", code, flags=re.MULTILINE))


def script_json(value: Any) -> Markup:
    """JSON that may stand in a script element: no `<`, so neither an end tag nor a comment can begin in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    escaped = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(escaped)


def visible(text: object) -> str:
    """Text of one token with spaces, line ends and control characters that can be seen."""
    return printable(str(text).replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")) or "∅"


def percent(value: Any, decimals: int = 1) -> str:
    """0.934 → 93.4 %."""
    return f"{100 * value:.{decimals}f}{JOINED}%" if _is_number(value) else MISSING


def number(value: Any, decimals: int = 0) -> str:
    """1234567 → 1,234,567."""
    return f"{value:,.{decimals}f}" if _is_number(value) else MISSING


def duration(seconds: Any) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if not _is_number(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f}{JOINED}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{JOINED}s"
    if whole < 3600:
        return f"{whole // 60}{JOINED}min {whole % 60}{JOINED}s"
    return f"{whole // 3600}{JOINED}h {whole % 3600 // 60}{JOINED}min"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
