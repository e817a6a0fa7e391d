"""Push a model to the Hub: nothing goes before it was seen to open without this package, and nothing secret goes.

The upload is huggingface_hub's `upload_folder`. Of the two that it has had, `upload_large_folder` keeps its state in
the folder and commits a few files at a time, in as many commits as it likes, and 2.4 has it no more; `upload_folder`
needs no state: files that the repository has already are not sent again, weights are cut into chunks of which the
storage has each once (Xet) or are sent whole once (LFS), and small files go in one commit. So a push that was
interrupted goes on when the same command runs again, as its folder is the same to the byte.

A repository is made private, and becomes public, where that is asked for, when all is there and was read back.
"""

import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import HfApi, ModelCard, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalTokenNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._paths import filter_repo_objects
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from ..conversion.opening import unreadable_is_one_line
from .card import describe
from .card_sections import Described, example
from .folder import WRITTEN, write_folder
from .heads import Place, head_outputs
from .privacy import refuse_secrets
from .record import CARD_FILE, MODEL_TYPES, Record, Statements, check_hub_name, read_checkpoint, read_record
from .reopening import check_reopens

_UNAUTHORISED = (401, 403)
_UNREACHABLE: type[Exception] = HfHubHTTPError.__bases__[0]  # of httpx or of httpx2, by huggingface_hub's version
_REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_TAG = re.compile(r"(?![-./])(?!.*(?:\.\.|@\{|//|/\.|\.lock(?:/|$)))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")
"""Names of a tag, by `git check-ref-format`."""


@dataclass(frozen=True)
class Plan:
    """What to push, and how.

    Attributes:
        model: The folder of a run or of a model.
        repo_id: `owner/name`.
        statements: What the card says and nobody can measure.
        is_public: Whether everybody may read it.
        with_checkpoints: Whether each checkpoint of the run gets a branch, named as its folder.
        tag: A name for the commit.

    Raises:
        ValueError: If the repository's name or the tag is none.
    """

    model: Path
    repo_id: str
    statements: Statements
    is_public: bool = False
    with_checkpoints: bool = False
    tag: str | None = None

    def __post_init__(self) -> None:
        if not _REPO_ID.fullmatch(self.repo_id):
            raise ValueError(
                f"REPO_ID ({self.repo_id}) must be owner/name, of letters, digits, '-', '_' and '.'; put your name or "
                "your organisation's in front."
            )
        check_hub_name("REPO_ID", self.repo_id)
        if self.tag is not None and not _TAG.fullmatch(self.tag):
            raise ValueError(
                f"tag ({self.tag}) must be a name that git takes, without spaces, '~', ':' and the like; choose one as "
                "v1.0."
            )


@dataclass(frozen=True)
class _Revision:
    """A folder that goes to a branch, a text to try its model on, and what its heads compute here."""

    branch: str
    folder: Path
    example: str
    outputs: dict[str, torch.Tensor]

    def place(self, name: str, commit: str | None = None) -> Place:
        return Place(name, commit, runs_code=True, example=self.example)


def dry_run(plan: Plan, folder: Path) -> None:
    """Do all of a push but the push: write the folder, look for secrets, open it without the package, compare.

    Args:
        plan: What would be pushed.
        folder: Where it is written; new or empty. Checkpoints stand beside it, as `FOLDER-checkpoint-STEP`.

    Raises:
        ValueError: If it may not or could not be pushed.
        FileNotFoundError: If there is no such model.
    """
    revisions = _write(plan, folder)
    _compare_folders(revisions)


def push(plan: Plan) -> str:
    """Push a model, and open it from the Hub in a process without the package.

    Returns:
        Where it is.

    Raises:
        ValueError: If it may not be pushed, or the Hub refuses.
        FileNotFoundError: If there is no such model.
        OSError: If the Hub cannot be reached; the same call goes on.
    """
    api = HfApi()
    record = read_record(plan.model)
    with _one_line_errors(plan.repo_id):
        _check_destination(api, plan)
    with tempfile.TemporaryDirectory(prefix="hf-minilm-push-") as temporary:
        revisions = _write(plan, Path(temporary) / record.name)
        _compare_folders(revisions)
        with _one_line_errors(plan.repo_id):
            commits = _upload(api, plan, revisions)
        places = [each.place(plan.repo_id, commit) for each, commit in zip(revisions, commits, strict=True)]
        _compare(revisions, places, where=plan.repo_id, offline=False)
    if plan.is_public:
        with _one_line_errors(plan.repo_id):
            api.update_repo_settings(plan.repo_id, private=False)
    return f"{api.endpoint}/{plan.repo_id}/tree/{commits[0]}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _records(plan: Plan) -> Iterator[tuple[str, Record]]:
    record = read_record(plan.model)
    yield constants.DEFAULT_REVISION, record
    if plan.with_checkpoints:
        if not record.checkpoints:
            raise ValueError(f"model ({plan.model}) must have checkpoints with --checkpoints; give a run's folder.")
        for checkpoint in record.checkpoints:
            yield checkpoint.name, read_checkpoint(record, checkpoint)


def _write(plan: Plan, folder: Path) -> list[_Revision]:
    revisions = []
    for branch, record in _records(plan):
        is_main = branch == constants.DEFAULT_REVISION
        revision = None if is_main else branch
        described = describe(record, statements=plan.statements, repo_id=plan.repo_id, revision=revision)
        place = folder if is_main else folder.with_name(f"{folder.name}-{branch}")
        left_out = write_folder(described, place)
        refuse_secrets(place, machine_paths=_machine_paths(record))
        ModelCard.load(place / CARD_FILE)
        number = sum(path.is_file() for path in place.rglob("*"))
        _say(f"{branch}: {number} files; left out: {', '.join(left_out) or 'nothing'}")
        if is_main:
            _note_unsaid(described)
        revisions.append(_Revision(branch, place, example(described), _outputs_here(place)))
    return revisions


def _outputs_here(folder: Path) -> dict[str, torch.Tensor]:
    with unreadable_is_one_line(folder.name):
        return head_outputs(Place(str(folder)))


def _machine_paths(record: Record) -> tuple[Path, ...]:
    """Return the folders whose paths would say where on this machine the model lay."""
    folder = record.model_folder
    run = folder.parents[1] if record.step is not None else folder.parent
    return tuple({run, Path.cwd()})


def _note_unsaid(described: Described) -> None:
    statements = described.statements
    unsaid = {
        "--license": statements.license,
        "--data-license": statements.data_license,
        "--language": statements.languages,
    }
    if described.record.recipe is None:  # a run's recipe says that it began with initial weights
        unsaid["--base-model"] = statements.base_model
    options = [option for option, value in unsaid.items() if not value]
    if options:
        _say(f"the card leaves unsaid what {', '.join(options)} would say")


def _compare_folders(revisions: Sequence[_Revision]) -> None:
    places = [each.place(str(each.folder.resolve())) for each in revisions]
    _compare(revisions, places, where="the folder", offline=True)


def _compare(revisions: Sequence[_Revision], places: Sequence[Place], *, where: str, offline: bool) -> None:
    expected = [each.outputs for each in revisions]
    for revision, reopened in zip(revisions, check_reopens(places, expected, offline=offline), strict=True):
        _say(
            f"{revision.branch}: opened from {where} without hf_minilm, through {reopened.heads} heads, largest "
            f"difference {reopened.difference:.1g}; {reopened.said}"
        )


def _check_destination(api: HfApi, plan: Plan) -> None:
    """Make sure that the token is one, and that the repository is new or may be written to as asked."""
    if constants.HF_HUB_OFFLINE:
        raise ValueError("HF_HUB_OFFLINE (1) must be unset for a push; unset it, or give --dry-run FOLDER.")
    api.whoami()
    if not api.repo_exists(plan.repo_id):
        for kind in ("dataset", "space"):
            if api.repo_exists(plan.repo_id, repo_type=kind):
                raise ValueError(
                    f"repository ({plan.repo_id}) must be a model's, and is a {kind}'s; choose another name."
                )
        return
    if not api.repo_info(plan.repo_id).private and not plan.is_public:
        raise ValueError(
            f"repository ({plan.repo_id}) must be private without --public, and everybody may read it; give --public, "
            "or make it private."
        )
    _check_same_kind(plan.repo_id)
    if plan.tag is not None:
        _is_tagged(api, plan, api.repo_info(plan.repo_id).sha)


def _check_same_kind(repo_id: str) -> None:
    with contextlib.suppress(EntryNotFoundError):
        config = json.loads(Path(hf_hub_download(repo_id, "config.json")).read_text(encoding="utf-8"))
        if config.get("model_type") not in MODEL_TYPES:
            raise ValueError(
                f"repository ({repo_id}, of a {config.get('model_type')}) must be empty or of this package's models; "
                "choose another name."
            )


def _upload(api: HfApi, plan: Plan, revisions: Sequence[_Revision]) -> list[str]:
    """Upload each revision's folder to its branch, and return the commits."""
    ModelCard.load(revisions[0].folder / CARD_FILE).validate()
    api.create_repo(plan.repo_id, private=True, exist_ok=True)
    if plan.tag is not None:
        _refuse_to_move(api, plan, revisions[0].folder)
    commits = []
    for revision in revisions:
        if revision.branch != constants.DEFAULT_REVISION:
            api.create_branch(plan.repo_id, branch=revision.branch, exist_ok=True)
        commit = api.upload_folder(
            repo_id=plan.repo_id,
            folder_path=revision.folder,
            revision=revision.branch,
            commit_message=f"Push {revision.folder.name} with hf_minilm",
            delete_patterns=list(WRITTEN),
        )
        _say(f"{revision.branch}: {commit.oid}")
        commits.append(commit.oid)
    if plan.tag is not None and not _is_tagged(api, plan, commits[0]):
        api.create_tag(plan.repo_id, tag=plan.tag, revision=commits[0])
    return commits


def _refuse_to_move(api: HfApi, plan: Plan, folder: Path) -> None:
    """Make sure, before anything is committed, that the upload of a folder adds no commit after the tagged one.

    A push that was cut off after its tag was made goes on, as it changes nothing.

    Raises:
        ValueError: If the newest commit has the tag already, and the folder differs from it.
    """
    newest = api.repo_info(plan.repo_id).sha
    if newest is None or not _is_tagged(api, plan, newest):
        return
    tree = api.list_repo_tree(plan.repo_id, recursive=True, revision=newest)
    there = {each.path: each for each in tree if isinstance(each, RepoFile)}
    here = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    gone = set(filter_repo_objects(there, allow_patterns=list(WRITTEN))) - here.keys()
    changed = (name for name, path in here.items() if name not in there or _differs(path, there[name]))
    name = next(iter(sorted(gone)), None) or next(changed, None)
    if name is not None:
        raise ValueError(
            f"tag ({plan.tag}) must be new, and names commit {newest[:12]}, which differs in {name}; choose another "
            "one."
        )


def _differs(path: Path, there: RepoFile) -> bool:
    """Compare a file with one of the Hub, which knows large ones by SHA-256 and the others as git does."""
    if there.lfs is None:
        return git_hash(path.read_bytes()) != there.blob_id
    if path.stat().st_size != there.size:
        return True
    with path.open("rb") as file:
        return sha_fileobj(file).hex() != there.lfs.sha256


def _is_tagged(api: HfApi, plan: Plan, commit: str | None) -> bool:
    """Tell whether a commit has the tag already; raise ValueError if another one has it."""
    named = next((each.target_commit for each in api.list_repo_refs(plan.repo_id).tags if each.name == plan.tag), None)
    if named not in (None, commit):
        raise ValueError(f"tag ({plan.tag}) must be new, and names commit {named[:12]}; choose another one.")
    return named is not None


@contextlib.contextmanager
def _one_line_errors(repo_id: str) -> Iterator[None]:
    """Turn what the Hub and the way there have against a push into one line that says what to do."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise ValueError("token (none) must be there for a push; run hf auth login, or set HF_TOKEN.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = error.server_message or str(error).splitlines()[0]
        if status in _UNAUTHORISED:
            raise ValueError(
                f"token (refused with {status}) must be valid and may write to {repo_id}; run hf auth login, or set "
                f"HF_TOKEN ({reason})."
            ) from error
        raise OSError(_goes_on(repo_id, f"{status}: {reason}")) from error
    except (_UNREACHABLE, RuntimeError) as error:
        reasons = dict.fromkeys(str(each) for each in (error, error.__cause__) if each is not None)
        raise OSError(_goes_on(repo_id, ": ".join(reasons))) from error


def _goes_on(repo_id: str, reason: str) -> str:
    return f"upload to {repo_id} must go through, and did not; the same command goes on where it stopped ({reason})."
