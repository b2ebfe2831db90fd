"""``glovebox deid SRC DST`` and the words that may stand in the place of SRC."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from deid import output, page, pipeline, profile, progress, vault, verify
from deid.report import STATUSES
from policies.errors import CannotRun, Invalid, _

MOST_SHARDS = 100_000
USAGE = """glovebox deid SRC DST --key FILE [options]
       glovebox deid keygen FILE
       glovebox deid verify DST [--against SRC] [--pictures N]
       glovebox deid crosswalk FILE --key FILE [--uids CSV] [--patients CSV]"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``deid``. A folder that is called like one of its words is written ``./keygen``."""
    parser = subparsers.add_parser(
        "deid",
        help="de-identify a folder or zip of medical images, photographs and videos",
        usage=USAGE,
    )
    add_arguments(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    parser.add_argument("src", metavar="SRC", help=f"folder, zip or file; or {', '.join(WORDS)}")
    parser.add_argument(
        "dst", metavar="DST", help="where the clean files go; FILE for keygen and crosswalk"
    )
    parser.add_argument(
        "--key", type=Path, metavar="FILE",
        help="the project's pseudonym key; crosswalk: the key of the crosswalk",
    )  # fmt: skip
    parser.add_argument(
        "--profile", default="research", metavar="FILE|NAME",
        help=f"one of {', '.join(profile.shipped())}, or a TOML file (default: research)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--report", type=Path, metavar="FILE", help="default: DST.report.jsonl")
    parser.add_argument(
        "--shard", metavar="K/N", help="clean only the K-th of N parts, and no tables"
    )
    parser.add_argument("--resume", action="store_true", help="go on after an interruption")
    parser.add_argument("--quarantine", type=Path, metavar="DIR", help="copy held files there")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write the report as a page with pictures, too"
    )
    parser.add_argument(
        "--html-pictures", type=int, metavar="N",
        help=f"so many pictures at most on the page (default: {page.PICTURES})",
    )  # fmt: skip
    parser.add_argument(
        "--html-originals", action="store_true",
        help="show the originals beside their pictures: the page then identifies",
    )  # fmt: skip
    parser.add_argument(
        "--crosswalk", type=Path, metavar="FILE",
        help="write old and new identifiers there, encrypted, or add them to what is there",
    )  # fmt: skip
    parser.add_argument(
        "--crosswalk-key", type=Path, metavar="FILE", help="another key than --key, kept elsewhere"
    )
    parser.add_argument("--against", type=Path, metavar="SRC", help="verify: the originals")
    parser.add_argument(
        "--uids", type=Path, metavar="CSV", help="crosswalk: old and new UIDs (id_old, id_new)"
    )
    parser.add_argument(
        "--patients", type=Path, metavar="CSV", help="crosswalk: old and new patient numbers"
    )
    parser.add_argument(
        "--pictures", type=int, metavar="N",
        help="verify: look for text in so many pictures at most; default: in all",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run one of the commands. Raises nothing that would print a place of the file system."""
    try:
        return _run(args)
    except OSError as error:
        if error.errno in output.FULL:
            raise output.DiskFull from None
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise CannotRun(_("A file could not be read or written: {reason}."), reason=reason
                        ) from None  # fmt: skip
    except RuntimeError as error:
        if "Symlink loop" not in str(error):
            raise
        # What pathlib raises in place of an OSError; its text is the place.
        raise CannotRun(
            _("A file could not be read or written: {reason}."), reason=os.strerror(errno.ELOOP)
        ) from None
    except KeyboardInterrupt:
        raise CannotRun(_("Stopped. What was finished stays; go on with --resume.")) from None


def _run(args: argparse.Namespace) -> int:
    word = WORDS.get(args.src)
    if word is None:
        return _deid(args)
    command, allowed = word
    for name in OWN_OPTIONS:
        if getattr(args, name) not in (None, False) and name not in allowed:
            raise Invalid(
                _("deid {command} does not take this option."),
                field="--" + name.replace("_", "-"),
                command=args.src,
            )
    return command(args)


def _keygen(args: argparse.Namespace) -> int:
    vault.write_key(Path(args.dst))
    _say(args, {"written": True}, "The key was written. Whoever holds it can repeat the mapping.")
    return 0


def _verify(args: argparse.Namespace) -> int:
    if args.pictures is not None and args.pictures < 0:
        raise Invalid(_("This must be a number of pictures."), field="--pictures")
    dst = Path(args.dst)
    beside = args.report or pipeline.default_report(dst)
    bar = progress.bar("searched", json=args.json)
    result = verify.verify(
        dst,
        args.against,
        pictures=args.pictures,
        report_path=beside if args.report or beside.is_file() else None,
        progress=bar,
    )
    if bar is not None:
        bar.close()
    for finding in result.findings[:50]:
        print(f"{finding.file}: {finding.where}: {finding.rule}", file=sys.stderr)
    if result.short or result.common or result.ambiguous:
        print(
            f"not looked for, because finding them proves nothing: {result.short} values too short,"
            f" {result.common} of common words; {result.ambiguous} days that a moved date may be",
            file=sys.stderr,
        )
    if result.unread:
        print(f"{result.unread} of {result.inputs} inputs gave only their names", file=sys.stderr)
    if result.pictures < result.all_pictures or result.partly:
        print(
            f"{result.pictures} of {result.all_pictures} pictures looked at again for text, "
            f"{result.partly} of them not in every frame",
            file=sys.stderr,
        )
    if result.doubts:
        print(
            f"{len(result.doubts)} places of photographs and videos look like text: "
            "a person has to see them",
            file=sys.stderr,
        )
    held = "no identifier found" if result.held else f"{len(result.findings)} findings"
    _say(args, result.as_mapping(), f"{result.files} files, {result.values} values: {held}")
    return 0 if result.held else 1


def _crosswalk(args: argparse.Namespace) -> int:
    if args.key is None:
        raise Invalid(_("A crosswalk opens with the key that it was written with."), field="--key")
    wanted = {"uid": args.uids, "patient": args.patients}
    if not any(wanted.values()):
        raise Invalid(_("Say where to write: --uids CSV, --patients CSV, or both."), field="--uids")
    if args.uids == args.patients:
        raise Invalid(_("Two lists need two files."), field="--patients")
    walk = vault.Crosswalk.load(Path(args.dst), vault.read_key(args.key))
    document: dict[str, object] = {}
    for kind, path in wanted.items():
        if path is not None:
            vault.write_private(path, walk.export(kind).encode())
            document[kind + "s"] = len(walk.entries[kind])
    words = ", ".join(f"{number} {kind}" for kind, number in document.items())
    _say(args, document, f"{words} written: these files identify, keep them like the originals")
    return 0


def _deid(args: argparse.Namespace) -> int:
    if args.key is None:
        raise Invalid(_("A key is needed; make one with: glovebox deid keygen FILE"), field="--key")
    for name, owner in FOREIGN_OPTIONS.items():
        if getattr(args, name) is not None:
            raise Invalid(
                _("This option belongs to deid {command}."), field=f"--{name}", command=owner
            )
    if args.workers < 1:
        raise Invalid(_("At least one worker is needed."), field="--workers")
    key = vault.read_key(args.key)
    walk = _walk_of(args, key)
    _check_page(args)
    chosen = profile.load(args.profile)
    bar = progress.bar("cleaned", json=args.json)
    summary = pipeline.run(
        Path(args.src),
        Path(args.dst),
        key=key,
        profile=chosen,
        workers=args.workers,
        report=args.report,
        resume=args.resume,
        quarantine=args.quarantine,
        progress=bar,
        crosswalk=walk,
        shard=_shard_of(args.shard),
    )
    if bar is not None:
        bar.close()
    if walk is not None:
        walk.save(args.crosswalk)
    if args.html is not None:
        page.write(
            args.html,
            args.report or pipeline.default_report(Path(args.dst)),
            dst=Path(args.dst),
            profile=chosen,
            pictures=page.PICTURES if args.html_pictures is None else args.html_pictures,
            originals=Path(args.src) if args.html_originals else None,
        )
    words = ", ".join(f"{summary.statuses[name]} {name}" for name in STATUSES)
    if summary.foreign:
        words += f"; {summary.foreign} files in DST are not of this run"
    _say(args, summary.as_mapping(), f"{summary.inputs} inputs: {words}")
    return 1 if summary.statuses["failed"] or summary.foreign else 0


def _shard_of(text: str | None) -> pipeline.Shard | None:
    if text is None:
        return None
    number, _slash, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= MOST_SHARDS:
        return pipeline.Shard(int(number), int(count))
    raise Invalid(_("A shard is written as K/N, the K-th of N, as in 2/8."), field="--shard")


def _check_page(args: argparse.Namespace) -> None:
    if args.html is None:
        if args.html_originals or args.html_pictures is not None:
            raise Invalid(_("Say where the page goes: --html FILE."), field="--html")
        return
    if args.html_pictures is not None and args.html_pictures < 0:
        raise Invalid(_("This must be a number of pictures."), field="--html-pictures")
    pipeline.check_beside("--html", args.html, Path(args.src), Path(args.dst))
    beside = (args.report or pipeline.default_report(Path(args.dst)), args.key, args.crosswalk)
    if args.html.is_dir() or args.html.resolve() in [each.resolve() for each in beside if each]:
        raise Invalid(_("The page needs a file of its own."), field="--html")


def _walk_of(args: argparse.Namespace, key: bytes) -> vault.Crosswalk | None:
    """The crosswalk to write, with what an earlier run has put in it."""
    if args.crosswalk is None and args.crosswalk_key is None:
        return None
    if args.crosswalk is None or args.crosswalk_key is None:
        raise Invalid(
            _("A crosswalk needs its file and its own key: --crosswalk FILE --crosswalk-key FILE."),
            field="--crosswalk" if args.crosswalk is None else "--crosswalk-key",
        )
    own = vault.read_key(args.crosswalk_key, field="--crosswalk-key")
    if own == key:
        raise Invalid(_("The crosswalk needs another key than --key."), field="--crosswalk-key")
    place = args.crosswalk.resolve()
    for field, folder in (("DST", args.dst), ("SRC", args.src)):
        if place.is_relative_to(Path(folder).resolve()):
            raise Invalid(
                _("The crosswalk must not lie under {folder}."), field="--crosswalk", folder=field
            )
    if not place.parent.is_dir():
        raise Invalid(_("There is no folder to write the crosswalk to."), field="--crosswalk")
    return vault.Crosswalk.load(place, own) if place.exists() else vault.Crosswalk(own)


def _say(args: argparse.Namespace, document: Mapping[str, object], words: str) -> None:
    print(words, file=sys.stderr)
    if args.json:
        print(json.dumps(document))


WORDS: Mapping[str, tuple[Callable[[argparse.Namespace], int], frozenset[str]]] = {
    "keygen": (_keygen, frozenset()),
    "verify": (_verify, frozenset({"against", "pictures", "report"})),
    "crosswalk": (_crosswalk, frozenset({"key", "uids", "patients"})),
}
FOREIGN_OPTIONS = {
    "against": "verify",
    "pictures": "verify",
    "uids": "crosswalk",
    "patients": "crosswalk",
}
OWN_OPTIONS = ("key", "report", "quarantine", "resume", "crosswalk", "crosswalk_key",
               "html", "html_pictures", "html_originals", "shard",
               *FOREIGN_OPTIONS)  # fmt: skip
