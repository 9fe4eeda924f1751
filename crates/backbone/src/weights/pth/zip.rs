//! The archive format of PyTorch 1.6 and later.
//!
//! A zip with `<name>/data.pkl`, `<name>/data/<key>` for each storage and, in newer files, `<name>/byteorder`. PyTorch stores
//! the entries without compression; compressed ones, as other programs may write them, are read as well.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;

use blemish_tensor::MappedFile;

use super::Parsed;
use super::pickle::Heap;
use super::strided::{Bytes, Storages};

/// Most bytes that a compressed entry may hold.
const INFLATED: usize = 1 << 31;

/// Reads pickle and storages.
pub(super) fn read(file: &MappedFile) -> Result<Parsed, String> {
    let all = file.bytes();
    let entries = directory(all).ok_or("is a zip archive that is truncated or damaged")?;
    let (root, pickle) = entries
        .iter()
        .find_map(|(name, entry)| name.strip_suffix("data.pkl").map(|root| (root.to_owned(), entry)))
        .ok_or("is a zip archive without data.pkl, so not a PyTorch file")?;
    if entries.contains_key(&format!("{root}constants.pkl")) {
        return Err("is a TorchScript program; save its state_dict() instead".to_owned());
    }
    let bytes = |entry: &Entry| -> Result<Bytes, String> {
        let range = entry.data(all).ok_or("is a zip archive that is truncated or damaged")?;
        match entry.method {
            0 => Ok(Bytes::Mapped(range)),
            8 => inflate(&all[range], entry.size).map(Bytes::Owned),
            other => Err(format!("holds an entry packed with zip method {other}, which is not read")),
        }
    };
    let content = |b: Bytes| match b {
        Bytes::Mapped(range) => all[range].to_vec(),
        Bytes::Owned(bytes) => bytes,
    };
    if let Some(order) = entries.get(&format!("{root}byteorder"))
        && content(bytes(order)?) != b"little"
    {
        return Err("was written on a big-endian machine, which is not read".to_owned());
    }
    let mut heap = Heap::default();
    let value = heap.load(&mut content(bytes(pickle)?).as_slice())?;
    let mut storages = Storages::new();
    for (name, entry) in &entries {
        if let Some(key) = name.strip_prefix(&root).and_then(|name| name.strip_prefix("data/")) {
            storages.insert(key.into(), bytes(entry)?);
        }
    }
    Ok((heap, value, storages))
}

struct Entry {
    method: u16,
    packed: usize,
    size: usize,
    header: usize,
}

impl Entry {
    /// Where its data lie: behind its local header.
    fn data(&self, all: &[u8]) -> Option<Range<usize>> {
        let header = all.get(self.header..)?;
        if u32_at(header, 0)? != 0x0403_4b50 {
            return None;
        }
        let names = usize::from(u16_at(header, 26)?) + usize::from(u16_at(header, 28)?);
        let start = self.header.checked_add(30 + names)?;
        let end = start.checked_add(self.packed)?;
        (end <= all.len()).then_some(start..end)
    }
}

/// The entries of the central directory, by name; `None` where it is damaged.
fn directory(all: &[u8]) -> Option<HashMap<String, Entry>> {
    let earliest = all.len().saturating_sub(22 + 0xffff);
    let end = (earliest..all.len().checked_sub(21)?).rev().find(|&at| u32_at(all, at) == Some(0x0605_4b50))?;
    let mut count = usize::from(u16_at(all, end + 10)?);
    let mut at = u32_at(all, end + 16)? as usize;
    if (count == 0xffff || at == 0xffff_ffff)
        && let Some(locator) = end.checked_sub(20).filter(|&l| u32_at(all, l) == Some(0x0706_4b50))
    {
        let wide = u64_at(all, locator + 8)?;
        if u32_at(all, wide)? != 0x0606_4b50 {
            return None;
        }
        count = u64_at(all, wide.checked_add(32)?)?;
        at = u64_at(all, wide.checked_add(48)?)?;
    }
    let mut entries = HashMap::new();
    for _ in 0..count {
        let record = all.get(at..)?;
        let encrypted = u16_at(record, 8)? & 1 == 1;
        if u32_at(record, 0)? != 0x0201_4b50 || encrypted {
            return None;
        }
        let [name, extra, comment] = [28, 30, 32].map(|o| u16_at(record, o).map(usize::from));
        let (name, extra, comment) = (name?, extra?, comment?);
        let text = std::str::from_utf8(record.get(46..46 + name)?).ok()?;
        let mut wide = wide_fields(record.get(46 + name..46 + name + extra)?).into_iter();
        let mut field = |offset: usize| match u32_at(record, offset)? {
            u32::MAX => wide.next(),
            narrow => Some(narrow as usize),
        };
        // The 64-bit fields stand in the order size, packed size, header.
        let (size, packed, header) = (field(24)?, field(20)?, field(42)?);
        entries.insert(text.to_owned(), Entry { method: u16_at(record, 10)?, packed, size, header });
        at = at.checked_add(46 + name + extra + comment)?;
    }
    Some(entries)
}

/// The 64-bit sizes in the extra field of an entry, if any.
fn wide_fields(mut extra: &[u8]) -> Vec<usize> {
    while let (Some(id), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some(body) = extra.get(4..4 + usize::from(length)) else { break };
        if id == 1 {
            return (0..body.len() / 8).filter_map(|i| u64_at(body, i * 8)).collect();
        }
        extra = &extra[4 + usize::from(length)..];
    }
    Vec::new()
}

fn inflate(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = size.min(INFLATED) as u64 + 1;
    flate2::read::DeflateDecoder::new(packed)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("holds a damaged compressed entry ({e})"))?;
    match bytes.len() == size {
        true => Ok(bytes),
        false => Err(format!("holds a compressed entry that is not the {size} bytes it claims")),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().and_then(|b| usize::try_from(u64::from_le_bytes(*b)).ok())
}
