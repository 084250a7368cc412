"""Exports a trained demo model with NeMo's exporter and makes it small.

    python export.py FOLDER OUT [--nemo FILE]

OUT gets the combined layout: encoder-model.onnx, decoder_joint-model.onnx, vocab.txt and config.json. The encoder of a
streaming model has its caches as ports, and metadata with the names that sherpa-onnx's export scripts use.

Large weights are stored as float16, each behind a Cast to float32. That halves the size of the files, and the
arithmetic stays in float32, because ONNX Runtime folds the casts when it loads a graph. --nemo also writes NeMo's own
file.
"""

import argparse
import json
import tempfile
from pathlib import Path

import model as demo
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SMALLEST = 128  # elements; storing smaller biases and scales as float16 is not worth a node


def store_as_half(graph_file: Path, out_file: Path) -> None:
    """Copies an ONNX graph, with float32 initializers of SMALLEST or more elements as float16 behind a Cast."""
    graph_model = onnx.load(graph_file)
    graph = graph_model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST:
            continue
        half = numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"{graph_file.name}: {tensor.name} does not fit float16")
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, name + ".f16"))
        casts.append(helper.make_node("Cast", [name + ".f16"], [name], name=name + ".f32", to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
    onnx.checker.check_model(graph_model)
    onnx.save(graph_model, out_file)


def constants_to_initializers(graph_file: Path) -> None:
    """Turns large Constant nodes into initializers, in place, so that they can be stored as float16 too."""
    graph_model = onnx.load(graph_file)
    graph = graph_model.graph
    for node in list(graph.node):
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            if np.prod(tensor.dims) >= SMALLEST:
                tensor.name = node.output[0]
                graph.initializer.append(tensor)
                graph.node.remove(node)
    onnx.save(graph_model, graph_file)


def streaming_metadata(model) -> dict[str, int | str]:
    """What a stream must know of its encoder beside the graph: the windows and the sizes of the caches."""
    settings, encoder = model.encoder.streaming_cfg, model.cfg.encoder
    return {
        "window_size": settings.chunk_size[1] + settings.pre_encode_cache_size[1],
        "chunk_shift": settings.shift_size[1],
        "cache_last_channel_dim1": encoder.n_layers,
        "cache_last_channel_dim2": settings.last_channel_cache_size,
        "cache_last_channel_dim3": encoder.d_model,
        "cache_last_time_dim1": encoder.n_layers,
        "cache_last_time_dim2": encoder.d_model,
        "cache_last_time_dim3": encoder.conv_kernel_size - 1,
        "normalize_type": "NA",
        "subsampling_factor": demo.SUBSAMPLING,
        "feat_dim": model.cfg.preprocessor.features,
        "vocab_size": len(model.joint.vocabulary),
    }


def export(model, out: Path) -> None:
    """Writes the combined layout of a NeMo TDT model (in eval mode) to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    streaming = demo.streams(model)
    if streaming:
        model.set_export_config({"cache_support": "True"})
    with tempfile.TemporaryDirectory() as scratch:
        model.export(str(Path(scratch) / "model.onnx"))
        for name in ("encoder-model.onnx", "decoder_joint-model.onnx"):
            constants_to_initializers(Path(scratch) / name)
            store_as_half(Path(scratch) / name, out / name)
    if streaming:
        encoder = onnx.load(out / "encoder-model.onnx")
        helper.set_model_props(encoder, {name: str(value) for name, value in streaming_metadata(model).items()})
        onnx.save(encoder, out / "encoder-model.onnx")
    pieces = [*model.joint.vocabulary, "<blk>"]
    (out / "vocab.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(pieces)), encoding="utf-8")
    description = {
        "model_type": "nemo-conformer-tdt",
        "features_size": 80,
        "normalize_type": model.cfg.preprocessor.normalize,
        "subsampling_factor": demo.SUBSAMPLING,
        "tdt_durations": list(demo.DURATIONS),
        "precision": "weights stored as float16, arithmetic float32",
    }
    (out / "config.json").write_text(json.dumps(description, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--nemo", type=Path)
    options = parser.parse_args()
    trained = demo.restore(options.folder)
    if options.nemo:
        trained.save_to(str(options.nemo))
    export(trained, options.out)
