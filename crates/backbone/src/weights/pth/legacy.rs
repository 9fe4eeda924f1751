//! The format before PyTorch 1.6: five pickles (magic number, version, system, object, keys of the storages), then for
//! each key the number of elements as `i64` and the elements.

use std::collections::HashMap;
use std::rc::Rc;

use blemish_tensor::MappedFile;

use super::Parsed;
use super::pickle::{Heap, Value};
use super::strided::{Bytes, Storages, element};

/// The magic number 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Reads pickle and storages.
pub(super) fn read(file: &MappedFile) -> Result<Parsed, String> {
    let all = file.bytes();
    let mut rest = all;
    let mut heap = Heap::default();
    if !matches!(heap.load(&mut rest)?, Value::Long(magic) if *magic == MAGIC) {
        return Err("is a pickle, but not one that torch.save wrote".to_owned());
    }
    match heap.load(&mut rest)? {
        Value::Int(1001) => {}
        other => return Err(format!("has the format version {other:?}; 1001 is read")),
    }
    let system = heap.load(&mut rest)?;
    let little = heap.dict(&system).and_then(|entries| {
        entries.iter().find(|(key, _)| matches!(key, Value::Str(s) if &**s == "little_endian")).map(|(_, v)| v)
    });
    if little == Some(&Value::Bool(false)) {
        return Err("was written on a big-endian machine, which is not read".to_owned());
    }
    let root = heap.load(&mut rest)?;
    let keys = heap.load(&mut rest)?;
    let kinds: HashMap<Rc<str>, &'static str> = heap.storages().iter().map(|s| (s.key.clone(), s.kind)).collect();
    let mut storages = Storages::new();
    for key in heap.items(&keys).ok_or("holds no list of its storages")? {
        let Value::Str(key) = key else { return Err("holds no list of its storages".to_owned()) };
        let kind = kinds.get(key).ok_or_else(|| format!("holds a storage {key} that no tensor uses"))?;
        let (_, size) = element(kind);
        let truncated = || format!("ends in the middle of storage {key}");
        let (count, data) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let length = usize::try_from(i64::from_le_bytes(*count)).ok().and_then(|n| n.checked_mul(size));
        let start = all.len() - data.len();
        let (_, behind) = length.and_then(|length| data.split_at_checked(length)).ok_or_else(truncated)?;
        storages.insert(key.clone(), Bytes::Mapped(start..all.len() - behind.len()));
        rest = behind;
    }
    Ok((heap, root, storages))
}
