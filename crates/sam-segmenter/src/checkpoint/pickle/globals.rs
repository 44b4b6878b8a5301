//! The names of functions and classes that a pickle may hold.

use tch::Kind;

use super::Node;

/// The callables and classes that a state dictionary needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Kind),
}

/// What a name stands for; an error for all but a few.
pub(super) fn named(module: &str, name: &str) -> Result<Node, String> {
    let storage = |kind| Ok(Node::Global(Global::Storage(kind)));
    match (module, name) {
        ("collections", "OrderedDict") => Ok(Node::Global(Global::OrderedDict)),
        ("torch._utils", "_rebuild_tensor_v2") => Ok(Node::Global(Global::RebuildTensor)),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Ok(Node::Global(Global::RebuildParameter))
        }
        ("torch", "DoubleStorage") => storage(Kind::Double),
        ("torch", "FloatStorage") => storage(Kind::Float),
        ("torch", "HalfStorage") => storage(Kind::Half),
        ("torch", "BFloat16Storage") => storage(Kind::BFloat16),
        ("torch", "LongStorage") => storage(Kind::Int64),
        ("torch", "IntStorage") => storage(Kind::Int),
        ("torch", "ShortStorage") => storage(Kind::Int16),
        ("torch", "CharStorage") => storage(Kind::Int8),
        ("torch", "ByteStorage") => storage(Kind::Uint8),
        ("torch", "BoolStorage") => storage(Kind::Bool),
        _ if beside_the_weights(module, name) => Ok(Node::Foreign(format!("{module}.{name}"))),
        _ => Err(format!(
            "refuses to run '{module}.{name}': a state dictionary has no need of it; save the model's state_dict() alone"
        )),
    }
}

/// Harmless classes that training scripts keep beside the weights: settings, counts, figures. Anything else is refused, so
/// that a file which was made to do harm is named so, though nothing of it would be run.
fn beside_the_weights(module: &str, name: &str) -> bool {
    match module {
        "argparse" => name == "Namespace",
        "collections" => matches!(name, "defaultdict" | "Counter" | "deque"),
        "builtins" | "__builtin__" => {
            matches!(
                name,
                "bool" | "complex" | "dict" | "float" | "frozenset" | "int" | "list" | "set" | "slice" | "str"
            )
        }
        "datetime" => matches!(name, "date" | "datetime" | "timedelta"),
        "pathlib" | "pathlib._local" => matches!(name, "Path" | "PosixPath" | "PurePosixPath" | "WindowsPath"),
        "numpy" => matches!(name, "dtype" | "ndarray"),
        "numpy.core.multiarray" | "numpy._core.multiarray" => matches!(name, "_reconstruct" | "scalar"),
        // How protocol 2 writes bytes.
        "_codecs" => name == "encode",
        "torch" => matches!(
            name,
            "Size" | "device" | "bfloat16" | "bool" | "float16" | "float32" | "float64" | "int32" | "int64" | "uint8"
        ),
        _ => false,
    }
}
