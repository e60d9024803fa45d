"""Building a model: a Modelfile and local files become layers, a manifest and a tag in the store.

    build(modelfile, context=folder, store=store, reference=reference, base=resolve)

What the instructions mean is decided in ``recipe``, a pure function; here is the work around it. Files are
checked before they are taken in, and each is read once. The tag comes last: when anything fails, no tag
has changed, and what was stored is left to ``gc``.

The same inputs give the same digest on any machine: file contents, file names, the Modelfile, build
arguments and the base's digest count; paths, times, owners and the new name do not.

The Modelfile itself is a layer too, in canonical form: build arguments put in, comments left out, local
paths replaced by ``@sha256:…``, models pinned by digest. It builds the same model in any store that has
the blobs. Of files that were quantised it names what they became; where a base model's weights were, a
comment says how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from ...modelfile.arguments import substitute
from ...modelfile.formatter import format_modelfile
from ...modelfile.instructions import Adapter, Comment, Copy, Draft, From, Instruction, Modelfile
from ..descriptor import Descriptor
from ..dialects import modelpack
from ..digest import Digest
from ..errors import BlobNotFound, SourceChanged
from ..gguf.check import check_adapter_fits, check_file, check_shards
from ..gguf.draft_fit import check_draft_fits
from ..gguf.header import GgufHeader, GgufKind
from ..gguf.problem import BadGguf, Problem
from ..layer import FIXED_PATHS, GGUF_KINDS, Layer, Role
from ..manifest import Manifest
from ..model import read_model
from ..progress import Progress, ProgressSink, ignore_progress
from ..reference import Reference
from ..store import Store
from .documents import find_documents
from .errors import BuildError
from .quantising import Original, Quantised, Quantising, quantise_weights, quantised_name
from .recipe import (
    Base,
    Content,
    Document,
    FromBytes,
    FromFile,
    FromStore,
    GgufPart,
    PlannedLayer,
    Recipe,
    base_weight_path,
    in_order,
    make_recipe,
)
from .source import (
    LocalFile,
    NamedModel,
    ReferenceParser,
    Source,
    StoredBlob,
    fingerprint,
    resolve_source,
)

BaseResolver: TypeAlias = Callable[[Reference], Manifest]


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What was built: the manifest, and its layers with their roles, weights first."""

    manifest: Manifest
    layers: tuple[Layer, ...]


def build(
    modelfile: Modelfile,
    *,
    context: Path,
    store: Store,
    reference: Reference,
    base: BaseResolver,
    args: Mapping[str, str] | None = None,
    source_date_epoch: int | None = None,
    parse_reference: ReferenceParser = Reference.parse,
    quantising: Quantising | None = None,
    progress: ProgressSink = ignore_progress,
) -> BuildResult:
    """Build ``modelfile`` and tag the result as ``reference``.

    Paths are relative to ``context``. ``base`` gives the manifest of a FROM model, and may pull it; its
    blobs must be in ``store`` then. ``source_date_epoch`` (seconds) dates the manifest, which has no date
    otherwise. ``parse_reference`` reads a FROM model's name. With ``quantising`` the weights, and nothing
    else, are quantised: they become one file.

    Raises:
        ModelfileError, BuildError: an instruction cannot be carried out.
        BadGguf: a file, or the base model's, is not a GGUF file that can be loaded safely.
        SourceChanged: a file was written to meanwhile.
        NotQuantisable, and what else `quantise_weights` raises.
        Whatever ``base`` and ``store`` raise. Then no tag has changed.
    """
    substituted = substitute(modelfile, args or {})
    with store.lease():
        builder = _Builder(store, context, base, parse_reference, quantising, progress)
        result = builder.build(substituted, _created(source_date_epoch))
        store.tag(reference, result.manifest.descriptor)
    progress(Progress("success"))
    return result


class _Builder:
    def __init__(
        self,
        store: Store,
        context: Path,
        base: BaseResolver,
        parse_reference: ReferenceParser,
        quantising: Quantising | None,
        progress: ProgressSink,
    ) -> None:
        self._store = store
        self._context = context
        self._resolve_base = base
        self._parse_reference = parse_reference
        self._quantising = quantising
        self._progress = progress
        self._parts: list[GgufPart] = []
        self._base: Base | None = None
        # what each instruction that names local files says in the canonical Modelfile
        self._named: dict[Instruction, list[GgufPart | Document | str]] = {}
        self._fingerprints: dict[Path, tuple[int, ...]] = {}
        self._digests: dict[Path, FromStore] = {}
        self._made: set[Digest] = set()
        self._how_to_repeat = ""

    def build(self, modelfile: Modelfile, created: str | None) -> BuildResult:
        for instruction in _effective(modelfile):
            self._gather(instruction)
        documents = self._gather_documents(modelfile)
        self._check_together()
        recipe = make_recipe(modelfile, parts=self._parts, documents=documents, base=self._base)
        if self._quantising is not None and self._quantise(self._quantising):
            recipe = make_recipe(modelfile, parts=self._parts, documents=documents, base=self._base)
        stored = [(planned, self._stored(planned.content)) for planned in recipe.layers]
        text = self._canonical(modelfile).encode()
        planned = PlannedLayer(Role.MODELFILE, FIXED_PATHS[Role.MODELFILE], FromBytes(text))
        stored.append((planned, self._stored(planned.content)))
        return self._manifest(recipe, stored, created)

    # what the instructions name

    def _gather(self, instruction: From | Adapter | Draft) -> None:
        if instruction in self._named:  # the same file twice is the same file
            return
        named = self._named.setdefault(instruction, [])
        for source in resolve_source(
            instruction, context=self._context, parse_reference=self._parse_reference
        ):
            if isinstance(instruction, Draft) and self._is_model_file(source):
                raise BuildError(instruction, "DRAFT must not reference the same local path as FROM")
            if isinstance(source, NamedModel):
                named.append(self._gather_model(instruction, source.reference))
                continue
            part = self._gguf_part(instruction, source)
            self._parts.append(part)
            named.append(part)

    def _is_model_file(self, source: Source) -> bool:
        return isinstance(source, LocalFile) and any(
            part.content == FromFile(source.path) for part in self._parts
        )

    def _gguf_part(self, instruction: From | Adapter | Draft, source: LocalFile | StoredBlob) -> GgufPart:
        self._progress(Progress("parsing GGUF"))
        content: FromFile | FromStore
        if isinstance(source, LocalFile):
            path, name, content = source.path, source.name, FromFile(source.path)
            self._fingerprints[path] = fingerprint(path)
        else:
            path, name = self._blob(instruction, source.digest), "model.gguf"
            content = FromStore(source.digest, path.stat().st_size)
        header = _checked(path, name)
        return GgufPart(_role(instruction, header), header, content, name)

    def _blob(self, instruction: Instruction, digest: Digest) -> Path:
        try:
            return self._store.blob_path(digest)
        except BlobNotFound as error:
            raise BuildError(instruction, "the store has no such blob") from error

    def _gather_model(self, instruction: From | Adapter | Draft, reference: Reference) -> str:
        """Read the base model. Returns its name, pinned."""
        if not isinstance(instruction, From):
            hint = "name a .gguf file, or a blob of the store by @sha256:…"
            raise BuildError(instruction, f"file not found: {instruction.ref}", hint=hint)
        if self._base is not None:
            raise BuildError(instruction, f"there is a base model already: {self._base.name}")
        model = read_model(self._store, self._resolve_base(reference))
        headers = {
            layer.digest: _checked(
                self._store.blob_path(layer.digest),
                f"{layer.role} of {reference.display}",
                size=layer.size,
                kind=GGUF_KINDS[layer.role],
            )
            for layer in model.layers
            if layer.role in GGUF_KINDS
        }
        name = str(replace(reference, digest=None)) if reference.tag else reference.name
        self._base = Base(
            name=name,
            digest=model.manifest.digest,
            layers=model.layers,
            headers=headers,
            params=model.params(),
            renderer=model.renderer,
            parser=model.parser,
            requires=model.requires,
        )
        return f"{name}@{model.manifest.digest}"

    def _gather_documents(self, modelfile: Modelfile) -> list[Document]:
        documents = []
        for instruction in modelfile.all(Copy):
            if instruction in self._named:
                continue
            named = self._named.setdefault(instruction, [])
            for document in find_documents(instruction, context=self._context, store=self._store):
                documents.append(document)
                named.append(document)
        return documents

    def _check_together(self) -> None:
        """What can be wrong with files that are each sound."""
        weights = [part for part in self._parts if part.role is Role.WEIGHTS]
        shards = sorted(
            (part for part in weights if part.header.split), key=lambda p: p.header.split or (0, 0)
        )
        headers = [part.header for part in shards]
        if shards and len(shards) == len(weights) and headers[0].split and len(shards) == headers[0].split[1]:
            _raise_if(shards[0].name, check_shards(headers))
        targets = [part.header for part in weights] or (self._base.weights if self._base else ())
        for part in self._parts:
            if part.role is Role.ADAPTER and targets:
                _raise_if(part.name, check_adapter_fits(part.header, targets))
            if part.role is Role.DRAFT and (model := self._first_shard(weights)):
                _raise_if(part.name, check_draft_fits((self._place(part.content), part.header), model))

    def _first_shard(self, weights: list[GgufPart]) -> tuple[Path, GgufHeader] | None:
        """Where the model's vocabulary is."""
        for part in weights:
            if part.header.is_first_shard:
                return self._place(part.content), part.header
        if weights or self._base is None:
            return None
        digest = next(layer.digest for layer in self._base.layers if layer.role is Role.WEIGHTS)
        return self._store.blob_path(digest), self._base.headers[digest]

    def _place(self, content: FromFile | FromStore) -> Path:
        return content.path if isinstance(content, FromFile) else self._store.blob_path(content.digest)

    # quantising

    def _quantise(self, how: Quantising) -> bool:
        """Put quantised weights in the place of the weights; False where they stay as they are."""
        weights = [part for part in self._parts if part.role is Role.WEIGHTS]
        if weights:
            return self._quantise_files(how, in_order(weights))
        assert self._base is not None  # there are weights, or no recipe
        return self._quantise_base(how, self._base)

    def _quantise_files(self, how: Quantising, weights: list[GgufPart]) -> bool:
        name = weights[0].name
        originals = [
            Original(part.content.path, part.header, fingerprint=self._fingerprints[part.content.path])
            if isinstance(part.content, FromFile)
            else Original(self._store.blob_path(part.content.digest), part.header, part.content.digest)
            for part in weights
        ]
        made = self._quantised(how, originals, name)
        if made is None:
            return False
        new_name = quantised_name(name, how.type.name)
        new = GgufPart(Role.WEIGHTS, made.header, made.content, new_name, made.origin)
        self._parts = [new, *(part for part in self._parts if part.role is not Role.WEIGHTS)]
        for named in self._named.values():  # the new file takes the first shard's place
            kept = [each for each in named if not any(each is shard for shard in weights[1:])]
            named[:] = [new if each is weights[0] else each for each in kept]
        return True

    def _quantise_base(self, how: Quantising, base: Base) -> bool:
        layers = [layer for layer in base.layers if layer.role is Role.WEIGHTS]
        originals = [
            Original(self._store.blob_path(layer.digest), base.headers[layer.digest], layer.digest)
            for layer in layers
        ]
        name = base_weight_path(layers[0])
        made = self._quantised(how, originals, name)
        if made is None:
            return False
        content, facts = made.content, {modelpack.QUANTIZED_FROM: made.origin}
        media_type = layers[0].descriptor.media_type
        new = Layer(
            Role.WEIGHTS,
            Descriptor(media_type, content.digest, content.size, facts),
            quantised_name(name, how.type.name),
        )
        self._base = replace(
            base,
            layers=(new, *(layer for layer in base.layers if layer.role is not Role.WEIGHTS)),
            headers={**base.headers, content.digest: made.header},
        )
        self._how_to_repeat = f" To build the same: lading create --quantize {how.type.name}"
        return True

    def _quantised(self, how: Quantising, originals: list[Original], name: str) -> Quantised | None:
        made = quantise_weights(self._store, how, originals, name=name, progress=self._progress)
        if made is not None:
            self._made.add(made.content.digest)
        return made

    # storing

    def _stored(self, content: Content) -> FromStore:
        match content:
            case FromStore():
                self._require(content)
                how = "creating new" if content.digest in self._made else "using existing"
                self._progress(Progress(f"{how} layer {content.digest}"))
                return content
            case FromFile(path):
                stored = self._imported(path)
            case FromBytes(data):
                stored = FromStore(self._store.put_bytes(data), len(data))
        self._progress(Progress(f"creating new layer {stored.digest}"))
        return stored

    def _require(self, content: FromStore) -> None:
        if not self._store.has(content.digest, content.size):
            raise BlobNotFound(str(content.digest))

    def _imported(self, path: Path) -> FromStore:
        """Take the file in, unless it was already; it must be what was checked."""
        if path in self._digests:
            return self._digests[path]
        done, total = 0, path.stat().st_size
        status = f"copying file {path.name}"

        def report(size: int) -> None:
            nonlocal done
            done += size
            self._progress(Progress(status, completed=done, total=total))

        imported = self._store.import_file(path, on_bytes=report)
        if self._fingerprints.get(path, fingerprint(path)) != fingerprint(path):
            raise SourceChanged(path)
        self._digests[path] = FromStore(imported.digest, imported.size)
        return self._digests[path]

    def _canonical(self, modelfile: Modelfile) -> str:
        instructions: list[Instruction] = []
        for instruction in modelfile:
            named = self._named.pop(instruction, None)  # the same instruction again adds nothing
            match instruction:
                case From() | Adapter() | Draft() if named is not None:
                    instructions += [replace(instruction, ref=self._pinned(each)) for each in named]
                case From() | Adapter() | Draft():
                    continue  # a later one counts
                case Copy():
                    for each in named or ():
                        assert isinstance(each, Document)
                        source, target = self._pinned(each), each.target
                        instructions.append(replace(instruction, source=source, target=target))
                case _:
                    instructions.append(instruction)
        # That a base model's weights were quantised is said by no instruction.
        comments = (Comment((self._how_to_repeat,), 0, detached=True),) if self._how_to_repeat else ()
        return format_modelfile(replace(modelfile, instructions=tuple(instructions), comments=comments))

    def _pinned(self, named: GgufPart | Document | str) -> str:
        if isinstance(named, str):
            return named
        content = named.content
        return f"@{self._digests[content.path].digest if isinstance(content, FromFile) else content.digest}"

    def _manifest(
        self, recipe: Recipe, stored: list[tuple[PlannedLayer, FromStore]], created: str | None
    ) -> BuildResult:
        layers = []
        for planned, content in stored:
            bare = Descriptor(modelpack.media_type_of(planned.role), content.digest, content.size)
            bare_layer = Layer(planned.role, bare, planned.filepath)
            descriptor = modelpack.layer_descriptor(bare_layer, planned.annotations)
            layers.append(replace(bare_layer, descriptor=descriptor))
        dated = {"createdAt": created} if created else {}
        config = modelpack.config_json(
            descriptor={**recipe.descriptor, **dated}, config=recipe.config, layers=layers
        )
        kitfile = modelpack.kitfile_json(
            name=recipe.name, license_=recipe.license, params=recipe.params, layers=layers
        )
        self._progress(Progress("writing manifest"))
        manifest = modelpack.build_manifest(
            config=Descriptor(modelpack.CONFIG_TYPE, self._store.put_bytes(config), len(config)),
            layers=[layer.descriptor for layer in layers],
            annotations={**recipe.annotations, modelpack.KITFILE: kitfile},
            created=created,
        )
        self._store.put_manifest(manifest)
        return BuildResult(manifest, tuple(layers))


def _effective(modelfile: Modelfile) -> list[From | Adapter | Draft]:
    """The instructions that name GGUF files and count: every FROM, the last ADAPTER, every DRAFT."""
    last = modelfile.last(Adapter)
    adapters = [last] if last is not None else []
    return [*modelfile.all(From), *adapters, *modelfile.all(Draft)]


def _role(instruction: From | Adapter | Draft, header: GgufHeader) -> Role:
    """What a file is for, by its kind; it must suit the instruction."""
    roles = {GgufKind.MODEL: Role.WEIGHTS, GgufKind.ADAPTER: Role.ADAPTER, GgufKind.PROJECTOR: Role.PROJECTOR}
    role = roles[header.kind]  # a file of another kind did not pass the check
    match instruction:
        case Adapter() if role is not Role.ADAPTER:
            raise BuildError(instruction, f"expected an adapter, the file is a {header.kind}")
        case Draft() if role is not Role.WEIGHTS:
            raise BuildError(instruction, f"expected a model, the file is a {header.kind}")
        case Draft():
            return Role.DRAFT
        case _:
            return role


def _checked(path: Path, name: str, *, size: int | None = None, kind: GgufKind | None = None) -> GgufHeader:
    """The header of a sound GGUF file; in errors it is called ``name``."""
    try:
        return check_file(path, expected_size=size, expected_kind=kind)
    except BadGguf as error:
        raise BadGguf(name, error.problems, hint=error.hint) from error


def _raise_if(name: str, problems: list[Problem]) -> None:
    if problems:
        raise BadGguf(name, problems)


def _created(epoch: int | None) -> str | None:
    """Seconds since 1970 as RFC 3339."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if epoch is not None else None
