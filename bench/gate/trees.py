"""Two trees of one git repository side by side: a clean worktree of the base, and a copy of the checkout as it is."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from baselines.errors import UserError

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FOLDER = "trilemma-gate-"
_LOCK = "lock"  # in that folder, held as long as its gate lives, however that ends
_NO_CODE = (".md", ".rst", ".txt.license")
_NO_CODE_FOLDERS = ("results/", "reports/", "tests/", "docs/", ".github/", ".ci/")


@dataclass(frozen=True)
class Base:
    """What the head is compared with."""

    root: Path  # of the checkout
    commit: str
    ref: str  # as the user named it
    changed: tuple[str, ...]  # files that differ, uncommitted and untracked ones included
    uncommitted: bool
    accepted: tuple[str, ...] = ()  # what commits since then say in a trailer `Gate-accept: NAME; reason`

    @property
    def code_changed(self) -> tuple[str, ...]:
        """Those of the changed files that can change a time: not documents, results, or tests."""
        return tuple(
            name for name in self.changed if not name.endswith(_NO_CODE) and not name.startswith(_NO_CODE_FOLDERS)
        )

    @property
    def title(self) -> str:
        """For the head of a table."""
        dirty = " with uncommitted changes" if self.uncommitted else ""
        return f"{self.commit[:10]} (merge base with {self.ref}) → working tree{dirty}"


@dataclass(frozen=True)
class Trees:
    """Two folders with the same layout; the names have the same length, so that paths have too."""

    base: Path
    head: Path

    def packages(self) -> tuple[str, ...]:
        """Importable packages at the top of either tree or in its src, but not tests: each side imports its own."""
        tops = (top for tree in (self.base, self.head) for top in (tree, tree / "src"))
        return tuple(sorted({path.parent.name for top in tops for path in top.glob("*/__init__.py")} - {"tests"}))


def find_base(place: Path, ref: str) -> Base:
    """The merge base of `ref` and HEAD, and what differs from it in the checkout around `place`.

    Raises:
        UserError: outside a repository, for an unknown ref, or where the histories do not meet.
    """
    try:
        root = Path(_git(place, "rev-parse", "--show-toplevel").rstrip("\n"))
    except UserError as error:
        raise UserError(f"gate --base: expected to run inside a git checkout, got {place} ({error})") from None
    if _try(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}") is None:
        raise UserError(f"gate --base: expected a checkout with a commit, got {root}, which has none yet")
    if ref.startswith("-") or (named := _try(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")) is None:
        raise UserError(
            f"gate --base {ref}: expected a commit, branch or tag of this repository, got an unknown name"
            f"{_deeper(root) or '; a remote branch has to be fetched first: git fetch origin'}"
        )
    commit = _try(root, "merge-base", named, "HEAD")
    if commit is None:
        raise UserError(
            f"gate --base {ref}: expected a history that meets that of HEAD, got none in common{_deeper(root)}"
        )
    differ = _git(root, "diff", "--name-only", "--no-renames", "-z", commit).split("\0")  # of a moved file both names
    fresh = _git(root, "ls-files", "-z", "--others", "--exclude-standard").split("\0")
    dirty = bool(_git(root, "status", "--porcelain").strip())
    trailers = _git(
        root, "log", "--format=%(trailers:key=Gate-accept,valueonly,unfold)", f"{commit}..HEAD"
    ).splitlines()
    changed = tuple(name for name in (*differ, *fresh) if name)
    return Base(root, commit, ref, changed, dirty, tuple(line for line in trailers if line.strip()))


@contextmanager
def side_by_side(base: Base) -> Iterator[Trees]:
    """The two trees in a temporary folder, which is gone afterwards, and so is git's note of the worktree.

    The head is a copy of the tracked and the untracked files that git does not ignore, so that edits made while the
    gate runs do not reach it. Signals wait while the two are made and while they go: git interrupted halfway leaves
    what it cannot remove. What a gate that was killed (SIGKILL) left of this repository goes first.
    """
    folder = Path(tempfile.gettempdir()).resolve() / f"{_FOLDER}{uuid.uuid4().hex[:12]}"
    trees = Trees(folder / "base", folder / "head")
    lock: int | None = None
    try:
        with undisturbed():
            _remove_orphans(base.root)
            folder.mkdir(mode=0o700)
            lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            with suppress(OSError):  # where the file system knows no locks, orphans stay
                fcntl.flock(lock, fcntl.LOCK_EX)
            _git(base.root, "worktree", "add", "--detach", "--quiet", str(trees.base), base.commit)
        _copy_checkout(base.root, trees.head)
        yield trees
    finally:
        with undisturbed():
            _remove(base.root, folder)
            if lock is not None:
                os.close(lock)


def _remove(root: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    # its folder is gone, so that this only ends git's note, locked or not; `prune` would end others' too, such as those
    # of a disk that is not mounted now
    _try(root, "worktree", "remove", "--force", "--force", str(folder / "base"))


def _remove_orphans(root: Path) -> None:
    for line in (_try(root, "worktree", "list", "--porcelain") or "").splitlines():
        folder = Path(line.removeprefix("worktree ")).parent
        if not (line.startswith("worktree ") and folder.name.startswith(_FOLDER)):
            continue
        with suppress(OSError):  # no lock is there, or its gate lives
            lock = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(root, folder)
            finally:
                os.close(lock)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP wait until the end of the block, and then take effect."""
    came: list[int] = []
    held = {}
    if threading.current_thread() is threading.main_thread():  # elsewhere no signal comes
        kept = (signal.SIG_IGN, None)  # nohup, or a handler of another language
        held = {n: h for n in _STOPS if (h := signal.getsignal(n)) not in kept}
    for number in held:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _copy_checkout(root: Path, to: Path) -> None:
    names = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in dict.fromkeys(names):
        source = root / name
        if name and (source.is_file() or source.is_symlink()):  # deleted ones are still listed, submodules are folders
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to / name, follow_symlinks=False)


def _deeper(root: Path) -> str:
    shallow = _try(root, "rev-parse", "--is-shallow-repository") == "true"
    return "; this clone is shallow: git fetch --unshallow" if shallow else ""


def _try(place: Path, *arguments: str) -> str | None:
    """What git says, or None where it refuses."""
    done = _run(place, arguments)
    return done.stdout.strip() if done.returncode == 0 else None


def _git(place: Path, *arguments: str) -> str:
    done = _run(place, arguments)
    if done.returncode != 0:
        raise UserError(f"git {arguments[0]}: {done.stderr.strip() or 'failed without a word'}")
    return done.stdout


def _run(place: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    no_hooks = f"core.hooksPath={os.devnull}"  # the user's hooks are not for a tree that nobody sees
    command = ["git", "-c", no_hooks, "-C", str(place), *arguments]
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env=_environment(),
            start_new_session=True,  # out of reach of the terminal's Ctrl-C
        )
    except FileNotFoundError as error:
        raise UserError("gate --base: expected git on this machine, got none") from error


def _environment() -> dict[str, str]:
    """Without what git sets for its hooks, which would lead `git -C` back to the hook's repository."""
    return {
        name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    }
