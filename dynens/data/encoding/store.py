"""Encoders on disk: JSON for parameters, Arrow for texts, npy for encoded entity rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc as ipc

from dynens.data.encoding.entities import EncodedEntity
from dynens.data.encoding.fields import (
    CategoricalEncoder,
    DenseVectorEncoder,
    FieldEncoder,
    NumericEncoder,
)
from dynens.data.encoding.list_field import LengthScale, MultiValuedEncoder
from dynens.data.encoding.lookups import LookUpEncoder
from dynens.data.encoding.vocabulary import Vocabulary
from dynens.data.reading.split_dates import Dates
from dynens.errors import BundleError
from dynens.schema import FieldSpec

if TYPE_CHECKING:
    from dynens.data.encoding.encoders import RowEncoder

FORMAT = 1


def write_encoder(encoder: RowEncoder, directory: Path) -> None:
    """Write `encoder.json`, `vocabularies.arrow` and one pair of files per entity."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabularies: list[pa.StringArray] = []
    fields = []
    for item in encoder.encoders:
        entry: dict[str, Any] = {
            "spec": item.spec.model_dump(mode="json", exclude_defaults=True, exclude={"why"}),
            "state": item.state(),
        }
        if isinstance(item, (CategoricalEncoder, MultiValuedEncoder)):
            entry["vocabulary"] = len(item.vocabulary.values)
            entry["hash_buckets"] = item.vocabulary.hash_buckets
            vocabularies.append(item.vocabulary.values)
        elif isinstance(item, LookUpEncoder):
            entry["vocabulary"] = len(item.pairs)
            vocabularies.append(item.pairs)
        fields.append(entry)
    _write_texts(directory / "vocabularies.arrow", vocabularies)
    entities = [_write_entity(entity, directory) for entity in encoder.entities]
    meta = {
        "format": FORMAT,
        "fields": fields,
        "entities": entities,
        "user_key": encoder.user_key,
        "item_key": encoder.item_key,
    }
    if encoder.dates:
        meta["dates"] = encoder.dates
    (directory / "encoder.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")


def _write_texts(path: Path, parts: Sequence[pa.StringArray]) -> None:
    values = pa.concat_arrays(parts) if parts else pa.array([], pa.string())
    table = pa.table({"value": values.cast(pa.large_string())})
    with ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def _read_texts(path: Path) -> pa.StringArray:
    with ipc.open_file(str(path)) as reader:
        values = reader.read_all()["value"].cast(pa.string())
    return values.combine_chunks() if values.num_chunks else pa.array([], pa.string())


def _write_entity(entity: EncodedEntity, directory: Path) -> dict[str, Any]:
    stem = f"entity_{entity.entity}"
    _write_texts(directory / f"{stem}_keys.arrow", [entity.keys])
    np.save(directory / f"{stem}_dense.npy", entity.dense)
    np.save(directory / f"{stem}_ids.npy", entity.ids)
    return {
        "entity": entity.entity,
        "key": entity.key,
        "dense_columns": entity.dense_columns.tolist(),
        "ids_columns": entity.ids_columns.tolist(),
    }


def read_encoder(
    directory: Path,
) -> tuple[list[FieldEncoder], list[EncodedEntity], str | None, str | None, Dates]:
    """(field encoders, entities, user key, item key, dates) as `write_encoder` stored them.

    Raises:
        BundleError: files are missing or damaged.
    """
    try:
        meta = json.loads((directory / "encoder.json").read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise BundleError(f"{directory} has encoder format {meta['format']}, not {FORMAT}.")
        texts = _read_texts(directory / "vocabularies.arrow")
        encoders, start = [], 0
        for entry in meta["fields"]:
            size = entry.get("vocabulary", 0)
            encoders.append(_read_field(entry, texts.slice(start, size)))
            start += size
        entities = [_read_entity(entry, directory) for entry in meta["entities"]]
        dates = {name: tuple(parts) for name, parts in meta.get("dates", {}).items()}
    except (OSError, EOFError, ValueError, KeyError, TypeError, pa.ArrowException) as e:
        if isinstance(e, BundleError):
            raise
        raise BundleError(f"{directory} holds no readable encoder ({e}).") from e
    return encoders, entities, meta["user_key"], meta["item_key"], dates


def _read_field(entry: dict[str, Any], texts: pa.StringArray) -> FieldEncoder:
    spec, state = FieldSpec.model_validate(entry["spec"]), entry["state"]
    if spec.kind == "numeric":
        early = [state["gap"]] if "gap" in state else []  # encoders of early versions have one
        gaps = [(float(middle), float(scale)) for middle, scale in state.get("gaps", early)]
        return NumericEncoder(
            spec,
            _floats(state["knots"]),
            _floats(state["heights"]),
            state["has_missing"],
            _floats(state["edges"]),
            gaps,
            state.get("holds_texts", False),
            dict(state.get("absent", [])),
        )
    if spec.kind == "dense_vector":
        middle, scale = state.get("dot", (0.0, 1.0))
        return DenseVectorEncoder(
            spec, _floats(state["mean"]), _floats(state["scale"]), (float(middle), float(scale))
        )
    texts = pa.concat_arrays([texts])  # a slice keeps the whole buffer alive
    if spec.through is not None:
        return LookUpEncoder(spec, texts, state["width"], state["num_embeddings"])
    vocabulary = Vocabulary(texts, entry.get("hash_buckets", spec.vocabulary.hash_buckets))
    if spec.kind == "multi_valued":
        length = state.get("length")  # encoders of early versions have none
        scale = None if length is None else LengthScale(*length)
        return MultiValuedEncoder(spec, vocabulary, state["width"], scale)
    return CategoricalEncoder(spec, vocabulary)


def _read_entity(entry: dict[str, Any], directory: Path) -> EncodedEntity:
    stem = f"entity_{entry['entity']}"
    return EncodedEntity(
        entity=entry["entity"],
        key=entry["key"],
        keys=_read_texts(directory / f"{stem}_keys.arrow"),
        dense=np.load(directory / f"{stem}_dense.npy", allow_pickle=False),
        ids=np.load(directory / f"{stem}_ids.npy", allow_pickle=False),
        dense_columns=np.array(entry["dense_columns"], np.int64),
        ids_columns=np.array(entry["ids_columns"], np.int64),
    )


def _floats(values: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.array(values, np.float64)
