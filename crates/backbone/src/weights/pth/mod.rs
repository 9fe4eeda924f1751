//! PyTorch's own files, read without executing anything.
//!
//! | file | what it reads |
//! |---|---|
//! | `zip.rs` | the archive of PyTorch 1.6 and later: `data.pkl` and one entry for each storage |
//! | `legacy.rs` | the format before: pickles one after another, then the storages |
//! | `pickle.rs` | the pickle virtual machine, cut down to data |
//! | `globals.rs` | the few names a pickle may mention, and what calling them makes |
//! | `strided.rs` | a tensor out of its storage |

mod globals;
mod legacy;
mod pickle;
mod strided;
mod zip;

use std::collections::BTreeMap;

use blemish_tensor::{MappedFile, Tensor};

use pickle::{Heap, Value};
use strided::Storages;

/// The tensors of the state dictionary in `file`.
pub(super) fn read(file: &MappedFile) -> Result<BTreeMap<String, Tensor>, String> {
    let (heap, root, storages) = match file.bytes() {
        [b'P', b'K', ..] => zip::read(file)?,
        _ => legacy::read(file)?,
    };
    let mut tensors = BTreeMap::new();
    for (key, value) in state_dict(&heap, &root)? {
        if let (Value::Str(name), Value::Tensor(id)) = (key, value) {
            let tensor = strided::tensor(file, &storages, heap.tensor(*id)?).map_err(|why| format!("{name}: {why}"))?;
            tensors.insert(name.to_string(), tensor);
        }
    }
    Ok(tensors)
}

/// Keys under which training programs keep the weights.
const KEYS: [&str; 4] = ["state_dict", "model_state_dict", "model", "state_dict_ema"];

/// The dictionary that holds tensors: the root itself or one below it.
fn state_dict<'a>(heap: &'a Heap, root: &'a Value) -> Result<&'a [(Value, Value)], String> {
    let mut dict = heap.dict(root).ok_or("holds no dictionary of tensors (a whole pickled model cannot be read)")?;
    for _ in 0..4 {
        if dict.iter().any(|(_, value)| matches!(value, Value::Tensor(_))) {
            return Ok(dict);
        }
        let below = |key: &&str| {
            dict.iter().find(|(k, _)| matches!(k, Value::Str(s) if &**s == *key)).and_then(|(_, v)| heap.dict(v))
        };
        match KEYS.iter().find_map(below) {
            Some(next) => dict = next,
            None => break,
        }
    }
    Err(format!("holds no tensors, neither at the top nor under {}", KEYS.join(", ")))
}

type Parsed = (Heap, Value, Storages);
