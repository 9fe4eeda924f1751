//! The names that a pickle of weights may mention. Everything else is refused by name.

use super::pickle::{Heap, StorageRef, TensorRef, Value, damaged};

/// A name that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// `_rebuild_tensor` and `_rebuild_tensor_v2`, which differ in arguments that do not matter here.
    RebuildTensor,
    RebuildParameter,
    Size,
    /// A storage type, by name.
    Storage(&'static str),
}

/// Storage types of PyTorch. The types among them that no weight has are refused when such a tensor is wanted.
const STORAGES: [&str; 10] = [
    "FloatStorage",
    "DoubleStorage",
    "HalfStorage",
    "BFloat16Storage",
    "LongStorage",
    "IntStorage",
    "ShortStorage",
    "CharStorage",
    "ByteStorage",
    "BoolStorage",
];

/// Most arguments of a call and axes of a tensor; keeps repeated calls from multiplying memory.
const MOST: usize = 16;

/// Most entries of a dictionary made in one call, for the same reason.
const MOST_ENTRIES: usize = 1 << 13;

impl Global {
    /// # Errors
    /// The name, where it is not one of the few that are allowed.
    pub(super) fn find(module: &str, name: &str) -> Result<Self, String> {
        match (module, name) {
            ("collections", "OrderedDict") => Ok(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Ok(Global::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Ok(Global::RebuildParameter),
            ("torch", "Size") => Ok(Global::Size),
            ("torch", name) if STORAGES.contains(&name) => {
                STORAGES.into_iter().find(|s| *s == name).map(Global::Storage).ok_or_else(damaged)
            }
            _ => Err(format!("refused: it asks for {module}.{name}, which is neither a tensor nor a plain container")),
        }
    }
}

/// What calling `callee` with a tuple of `arguments` makes.
pub(super) fn call(heap: &mut Heap, callee: &Value, arguments: &Value) -> Result<Value, String> {
    let Value::Global(global) = callee else { return Err(damaged()) };
    let given = heap.items(arguments).filter(|given| given.len() <= MOST).ok_or_else(damaged)?.to_vec();
    match (global, given.as_slice()) {
        (Global::OrderedDict, []) => Ok(heap.new_dict(Vec::new())),
        (Global::OrderedDict, [entries]) => {
            let entries = heap.items(entries).filter(|entries| entries.len() <= MOST_ENTRIES).ok_or_else(damaged)?;
            let pair = |entry: &Value| match heap.items(entry) {
                Some([key, value]) => Ok((key.clone(), value.clone())),
                _ => Err(damaged()),
            };
            let entries = entries.iter().map(pair).collect::<Result<_, _>>()?;
            Ok(heap.new_dict(entries))
        }
        (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
            let storage = heap.storage(storage).ok_or_else(damaged)?.clone();
            let shape = sizes(heap, shape)?;
            let strides = sizes(heap, strides)?;
            let offset = size(offset)?;
            Ok(heap.new_tensor(TensorRef { storage, offset, shape, strides }))
        }
        (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
        (Global::Size, [sizes]) => Ok(sizes.clone()),
        (Global::Size, []) => Ok(heap.new_tuple(Vec::new())),
        _ => Err(damaged()),
    }
}

/// The storage behind a persistent id, `('storage', type, key, location, elements, ...)`.
pub(super) fn storage(heap: &mut Heap, id: &Value) -> Result<Value, String> {
    match heap.items(id) {
        Some([Value::Str(tag), Value::Global(Global::Storage(kind)), Value::Str(key), _, elements, view @ ..])
            if &**tag == "storage" =>
        {
            if !matches!(view, [] | [Value::None]) {
                return Err("holds a view of a storage in a form too old to be read".to_owned());
            }
            let storage = StorageRef { kind, key: key.clone(), elements: size(elements)? };
            Ok(heap.new_storage(storage))
        }
        _ => Err(damaged()),
    }
}

fn size(value: &Value) -> Result<usize, String> {
    match value {
        Value::Int(n) => usize::try_from(*n).map_err(|_| format!("holds a tensor with the size or stride {n}")),
        _ => Err(damaged()),
    }
}

fn sizes(heap: &Heap, value: &Value) -> Result<Vec<usize>, String> {
    heap.items(value).filter(|sizes| sizes.len() <= MOST).ok_or_else(damaged)?.iter().map(size).collect()
}
