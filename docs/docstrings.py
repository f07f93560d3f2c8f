"""How docstrings become pages of reference: lines such as "name: what it is" become a list, as Markdown knows lists."""

import re

import griffe

ENTRY = re.compile(r"(?P<names>(?:``)?[*\w.]+(?:``)?(?:, (?:``)?\w+(?:``)?)*): (?P<text>\S.*)")
BESIDE = re.compile(r" {3,}(?=(?:``)?\w+(?:``)?(?:, (?:``)?\w+(?:``)?)*: )")


def as_lists(docstring: str) -> str:
    """A docstring whose entries, one or more per line and perhaps continued on the next, are items of a list."""
    lines: list[str] = []
    inside = False
    for line in re.sub(r"(?<=\[)\*|(?<=, )\*(?=\w)", r"\\*", docstring).split("\n"):
        parts = [part.strip() for part in BESIDE.split(line)]
        entries = [ENTRY.fullmatch(part) for part in parts]
        starts = bool(entries[0]) and not line[:1].isspace()
        continues = inside and bool(parts[0]) and not starts and (line[:1].isspace() or not parts[0][0].isupper())
        if continues and parts[0].startswith("- "):
            lines.append("    " + parts[0])
        elif continues:
            lines[-1] += " " + parts[0]
        if starts or continues:
            lines += [""] if starts and not inside else []
            lines += [f"* `{each['names'].replace('`', '')}`: {each['text']}" for each in entries[continues:] if each]
        else:
            lines += ["", line] if inside and parts[0] else [line]
        inside = starts or continues
    return "\n".join(lines).strip("\n")


class EntriesAsLists(griffe.Extension):
    """`as_lists`, for every docstring that mkdocstrings shows."""

    def on_instance(self, *, obj, **kwargs):
        """Called once for each object."""
        del kwargs
        if obj.docstring:
            obj.docstring.value = as_lists(obj.docstring.value)
