"""lhotse's cuts, read without lhotse: what a MonoCut of a file says, and why any other cut is refused."""

from __future__ import annotations

from typing import Any

from melcodec.manifests.rows import Rows

CUTS = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut")


def is_cut(row: dict[str, Any]) -> bool:
    """Whether a row of JSON is one of lhotse's cuts."""
    return row.get("type") in CUTS


def facts_of_cut(row: dict[str, Any], rows: Rows, number: int) -> dict[str, Any]:
    """The values of a MonoCut, by the names that ``rows`` takes.

    lhotse's relative paths start where its user stands: they do so here unless the first cut's file lies beside the list.

    Raises:
        MelcodecError: another kind of cut, or sound that is not simply a part of a file.
    """
    try:
        path = _file(row)
        said = row.get("supervisions") or [{}]
        facts = {field: said[0].get(field) for field in ("speaker", "language")}
        texts = [text for each in said if (text := each.get("text"))]
        facts |= {"id": row["id"], "path": path, "start": row["start"], "duration": row["duration"], "text": " ".join(texts)}
    except _UnusableError as reason:
        raise rows.wrong(number, f"cut '{row.get('id')}' {reason}") from None
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise rows.wrong(number, f"cut '{row.get('id')}' is not as lhotse writes it ({error!r})") from None
    rows.start_beside_or_here(path)
    return facts


class _UnusableError(Exception):
    """Why a cut cannot be read."""


def _file(row: dict[str, Any]) -> str:
    """The file, or URL, that a cut is a part of."""
    if row["type"] != "MonoCut":
        raise _UnusableError(f"is a {row['type']}; only a MonoCut is a part of one file")
    if not row.get("recording"):
        raise _UnusableError("has features but no recording")
    recording = row["recording"]
    changes = [change["name"] for change in recording.get("transforms") or [] if change["name"] != "Resample"]
    if changes:
        raise _UnusableError(f"is changed by lhotse on the fly ({', '.join(changes)}); save its audio first")
    if len(recording["sources"]) != 1:
        raise _UnusableError(f"has a recording of {len(recording['sources'])} files; only one is read")
    source = recording["sources"][0]
    if source["type"] not in ("file", "url"):
        reason = "commands are never run" if source["type"] == "command" else "only files and URLs are read"
        raise _UnusableError(f"has a source of type {source['type']}; {reason}")
    if len(source["channels"]) != 1:
        raise _UnusableError(f"takes one of {len(source['channels'])} channels, which melcodec would average; save it as mono")
    return str(source["source"])
