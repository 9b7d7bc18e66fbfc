"""Tensors that a model keeps in other files are found wherever ONNX keeps tensors."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from models.onnx_io import files
from models.onnx_io.runtime import NotOnnxError, external_tensors

TENSOR_PLACES = ("initializer", "sparse", "attribute", "attributes", "subgraph", "function", "training")


@given(
    st.lists(st.tuples(st.sampled_from(TENSOR_PLACES), st.booleans()), min_size=1, max_size=6), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_external_tensors_are_found_wherever_onnx_keeps_tensors(
    places: list[tuple[str, bool]], by_path: bool
) -> None:
    model = helper.make_model(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], []))
    outside = set()
    for number, (place, is_outside) in enumerate(places):
        tensor = helper.make_tensor(f"t{number}", TensorProto.FLOAT, [2], [1.0, 2.0])
        if is_outside:
            outside.add(tensor.name)
            if by_path:
                entry = tensor.external_data.add()
                entry.key, entry.value = "location", "w.bin"
            else:
                tensor.data_location = TensorProto.EXTERNAL
        inner = helper.make_graph([], "inner", [], [], [tensor])
        if place == "initializer":
            model.graph.initializer.append(tensor)
        elif place == "sparse":
            model.graph.sparse_initializer.add().values.CopyFrom(tensor)
        elif place == "attribute":
            model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
        elif place == "attributes":
            model.graph.node[0].attribute.append(helper.make_attribute("many", [tensor]))
        elif place == "subgraph":
            model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner))
        elif place == "function":
            model.functions.add().node.append(helper.make_node("Constant", [], ["c"], value=tensor))
        else:
            model.training_info.add().initialization.CopyFrom(inner)
    assert set(external_tensors(model.SerializeToString())) == outside
    if outside:
        with pytest.raises(files.OnnxFileError, match=f"keeps {len(outside)} tensors"):
            files.parse_onnx(model.SerializeToString(), "it")


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_bytes_that_are_no_model_are_one_error(content: bytes) -> None:
    try:
        names = external_tensors(content)
    except NotOnnxError:
        return
    assert names == [] or content
