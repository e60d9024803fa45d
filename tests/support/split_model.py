"""A GGUF model in several files, as llama.cpp's tool splits one."""

from __future__ import annotations

from pathlib import Path

import gguf


def split_model(source: Path, folder: Path, *, tensors: int, alignment: int = 0) -> list[Path]:
    """The shards of ``source``, each with that many tensors, in order; one file where it has fewer.

    ``alignment`` is what the header says, where it is not 0.
    """
    reader = gguf.GGUFReader(source)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    architecture = fields.pop("general.architecture").contents()
    writer = gguf.GGUFWriter(folder / "model.gguf", architecture, split_max_tensors=tensors)
    if alignment:
        writer.add_custom_alignment(alignment)
    for name, field in fields.items():
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=field.types[-1])
        else:
            writer.add_key_value(name, field.contents(), field.types[0])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("model*.gguf"))
