//! Scalars as TensorBoard reads them: TFRecords of `Event` messages (tensorflow/core/util/event.proto).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use blemish_core::Epoch;

use crate::{Error, Result};

/// A file of events that grows.
pub(super) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// A new file in `folder`, in place of those there: TensorBoard would show them one over the other.
    pub(super) fn new(folder: &Path) -> Result<Events> {
        let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?.flatten();
        for old in entries.filter(|e| e.file_name().to_string_lossy().starts_with("events.out.tfevents.")) {
            std::fs::remove_file(old.path()).map_err(Error::io(&old.path()))?;
        }
        let path = folder.join(format!("events.out.tfevents.{}.blemish", now() as u64));
        let file = OpenOptions::new().append(true).create_new(true).open(&path).map_err(Error::io(&path))?;
        let mut events = Events { path, file };
        let mut version = message();
        text(&mut version, 3, b"brain.Event:2");
        events.append(&version)?;
        Ok(events)
    }

    /// Adds the losses and the learning rate of an epoch.
    pub(super) fn add(&mut self, epoch: &Epoch) -> Result<()> {
        let scalars = [
            ("loss/train", Some(epoch.train_loss)),
            ("loss/validation", epoch.validation_loss),
            ("judged", epoch.judged),
            ("lr", Some(epoch.lr)),
            ("seconds", Some(epoch.seconds)),
        ];
        for (tag, value) in scalars {
            let Some(value) = value else { continue };
            // Summary.Value { tag = 1, simple_value = 2 } in Summary { value = 1 } in Event { step = 2, summary = 5 }.
            let (mut inner, mut summary, mut event) = (Vec::new(), Vec::new(), message());
            text(&mut inner, 1, tag.as_bytes());
            inner.push(2 << 3 | 5);
            inner.extend((value as f32).to_le_bytes());
            text(&mut summary, 1, &inner);
            event.push(2 << 3);
            varint(&mut event, epoch.epoch as u64);
            text(&mut event, 5, &summary);
            self.append(&event)?;
        }
        Ok(())
    }

    /// Length, its checksum, the message, its checksum; in one write, so that a reader meets whole records.
    fn append(&mut self, message: &[u8]) -> Result<()> {
        let length = (message.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length));
        record.extend(message);
        record.extend(masked(message));
        self.file.write_all(&record).map_err(Error::io(&self.path))
    }
}

/// TensorFlow's masked CRC-32C.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// An event with its wall time.
fn message() -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(now().to_le_bytes());
    event
}

/// A field of text or of a message.
fn text(to: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    to.push(field << 3 | 2);
    varint(to, bytes.len() as u64);
    to.extend(bytes);
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of a file, after checking lengths and sums.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(bytes[8..12], masked(&bytes[..8]));
            let message = &bytes[12..12 + length];
            assert_eq!(bytes[12 + length..16 + length], masked(message));
            found.push(message.to_vec());
            bytes = &bytes[16 + length..];
        }
        found
    }

    #[test]
    fn records_are_whole_and_hold_the_values() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        let dir = tempfile::tempdir().unwrap();
        let mut events = Events::new(dir.path()).unwrap();
        events
            .add(&Epoch { epoch: 300, train_loss: 0.5, validation_loss: None, judged: None, lr: 1e-3, seconds: 2.0 })
            .unwrap();
        let records = records(&std::fs::read(&events.path).unwrap());
        assert_eq!(records.len(), 4);
        assert!(records[0].ends_with(b"brain.Event:2"));
        // After the wall time: step 300 as a varint, then the summary.
        assert_eq!(records[1][9..12], [0x10, 0xac, 0x02]);
        assert_eq!(records[1][12..16], [0x2a, 19, 0x0a, 17]);
        assert_eq!(records[1][16..28], *b"\x0a\x0aloss/train");
        assert_eq!(records[1][28..], [&[0x15u8][..], &0.5f32.to_le_bytes()].concat());
    }
}
