//! The pickle virtual machine, cut down to data (protocols 2 to 5 in the binary opcodes that PyTorch writes).
//!
//! Values live in a [`Heap`] and refer to each other by index, so that sharing and cycles cost nothing and dropping never
//! recurses. Calls are answered by [`globals`](super::globals) alone.

use std::collections::HashMap;
use std::rc::Rc;

use super::globals::{self, Global};

/// One pickled value; containers by their index in the [`Heap`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Mark,
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, little-endian two's complement.
    Long(Rc<[u8]>),
    Float(f64),
    Str(Rc<str>),
    Bytes,
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

/// A storage that tensors refer to.
#[derive(Clone, Debug)]
pub(super) struct StorageRef {
    pub(super) kind: &'static str,
    pub(super) key: Rc<str>,
    pub(super) elements: usize,
}

/// A tensor: a strided window into a storage, sizes in elements.
#[derive(Clone, Debug)]
pub(super) struct TensorRef {
    pub(super) storage: StorageRef,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// Everything that pickled values refer to.
#[derive(Debug, Default)]
pub(super) struct Heap {
    tuples: Vec<Vec<Value>>,
    lists: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
    storages: Vec<StorageRef>,
    tensors: Vec<TensorRef>,
}

type Result<T> = std::result::Result<T, String>;

fn put<T>(list: &mut Vec<T>, value: T) -> usize {
    list.push(value);
    list.len() - 1
}

impl Heap {
    /// Entries of a dictionary.
    pub(super) fn dict(&self, value: &Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Dict(id) => self.dicts.get(*id).map(Vec::as_slice),
            _ => None,
        }
    }

    /// Items of a tuple or list.
    pub(super) fn items(&self, value: &Value) -> Option<&[Value]> {
        match value {
            Value::Tuple(id) => self.tuples.get(*id).map(Vec::as_slice),
            Value::List(id) => self.lists.get(*id).map(Vec::as_slice),
            _ => None,
        }
    }

    pub(super) fn tensor(&self, id: usize) -> Result<&TensorRef> {
        self.tensors.get(id).ok_or_else(damaged)
    }

    pub(super) fn storage(&self, value: &Value) -> Option<&StorageRef> {
        match value {
            Value::Storage(id) => self.storages.get(*id),
            _ => None,
        }
    }

    /// Every storage mentioned.
    pub(super) fn storages(&self) -> &[StorageRef] {
        &self.storages
    }

    pub(super) fn new_tuple(&mut self, items: Vec<Value>) -> Value {
        Value::Tuple(put(&mut self.tuples, items))
    }

    pub(super) fn new_dict(&mut self, entries: Vec<(Value, Value)>) -> Value {
        Value::Dict(put(&mut self.dicts, entries))
    }

    pub(super) fn new_storage(&mut self, storage: StorageRef) -> Value {
        Value::Storage(put(&mut self.storages, storage))
    }

    pub(super) fn new_tensor(&mut self, tensor: TensorRef) -> Value {
        Value::Tensor(put(&mut self.tensors, tensor))
    }

    /// Reads one pickle from the front of `input` and moves `input` past it.
    pub(super) fn load(&mut self, input: &mut &[u8]) -> Result<Value> {
        let mut machine = Machine { heap: self, stack: Vec::new(), memo: HashMap::new() };
        loop {
            let [op] = take(input)?;
            if op == b'.' {
                return machine.pop();
            }
            machine.step(op, input)?;
        }
    }
}

struct Machine<'a> {
    heap: &'a mut Heap,
    stack: Vec<Value>,
    memo: HashMap<usize, Value>,
}

impl Machine<'_> {
    fn step(&mut self, op: u8, input: &mut &[u8]) -> Result<()> {
        match op {
            // Headers.
            0x80 => match take::<1>(input)? {
                [2..=5] => {}
                [version] => return Err(format!("is a pickle of protocol {version}; 2 to 5 are read")),
            },
            0x95 => drop(take::<8>(input)?),
            // Plain values.
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'J' => self.int(i64::from(i32::from_le_bytes(take(input)?))),
            b'K' => self.int(i64::from(take::<1>(input)?[0])),
            b'M' => self.int(i64::from(u16::from_le_bytes(take(input)?))),
            0x8a => {
                let [length] = take(input)?;
                let value = long(bytes(input, usize::from(length))?);
                self.stack.push(value);
            }
            b'G' => self.stack.push(Value::Float(f64::from_be_bytes(take(input)?))),
            b'X' | b'T' => self.text(input, |i| Ok(u32::from_le_bytes(take(i)?) as usize))?,
            0x8c | b'U' => self.text(input, |i| Ok(usize::from(take::<1>(i)?[0])))?,
            0x8d => self.text(input, |i| usize::try_from(u64::from_le_bytes(take(i)?)).map_err(|_| damaged()))?,
            b'C' => {
                let [length] = take(input)?;
                bytes(input, usize::from(length))?;
                self.stack.push(Value::Bytes);
            }
            b'B' => {
                let length = u32::from_le_bytes(take(input)?);
                bytes(input, length as usize)?;
                self.stack.push(Value::Bytes);
            }
            // Containers.
            b'(' => self.stack.push(Value::Mark),
            b')' => self.tuple(Vec::new()),
            b't' => {
                let items = self.pop_mark()?;
                self.tuple(items);
            }
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(op - 0x84)).ok_or_else(damaged)?;
                let items = self.stack.split_off(start);
                self.tuple(items);
            }
            b']' => self.list(Vec::new()),
            b'l' => {
                let items = self.pop_mark()?;
                self.list(items);
            }
            b'}' => {
                let dict = self.heap.new_dict(Vec::new());
                self.stack.push(dict);
            }
            b'd' => {
                let entries = pairs(self.pop_mark()?)?;
                let dict = self.heap.new_dict(entries);
                self.stack.push(dict);
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![(key, value)])?;
            }
            b'u' => {
                let entries = pairs(self.pop_mark()?)?;
                self.set(entries)?;
            }
            // Stack and memo.
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.stack.last().cloned().ok_or_else(damaged)?;
                self.stack.push(top);
            }
            b'q' => self.remember(usize::from(take::<1>(input)?[0]))?,
            b'r' => self.remember(u32::from_le_bytes(take(input)?) as usize)?,
            0x94 => self.remember(self.memo.len())?,
            b'h' => self.recall(usize::from(take::<1>(input)?[0]))?,
            b'j' => self.recall(u32::from_le_bytes(take(input)?) as usize)?,
            // Names and calls.
            b'c' => {
                let (module, name) = (line(input)?, line(input)?);
                self.stack.push(Value::Global(Global::find(module, name)?));
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Str(name), Value::Str(module)) => {
                    self.stack.push(Value::Global(Global::find(&module, &name)?));
                }
                _ => return Err(damaged()),
            },
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let value = globals::call(self.heap, &callee, &arguments)?;
                self.stack.push(value);
            }
            // Attributes set on an object; the containers read here need none (`_metadata` of a state dictionary).
            b'b' => drop(self.pop()?),
            b'Q' => {
                let id = self.pop()?;
                let storage = globals::storage(self.heap, &id)?;
                self.stack.push(storage);
            }
            other => return Err(format!("uses the pickle opcode {:?}, which is refused", char::from(other))),
        }
        Ok(())
    }

    fn int(&mut self, value: i64) {
        self.stack.push(Value::Int(value));
    }

    fn tuple(&mut self, items: Vec<Value>) {
        let tuple = self.heap.new_tuple(items);
        self.stack.push(tuple);
    }

    fn list(&mut self, items: Vec<Value>) {
        self.stack.push(Value::List(put(&mut self.heap.lists, items)));
    }

    fn text(&mut self, input: &mut &[u8], length: impl Fn(&mut &[u8]) -> Result<usize>) -> Result<()> {
        let length = length(input)?;
        let text = std::str::from_utf8(bytes(input, length)?).map_err(|_| "holds a text that is not UTF-8")?;
        self.stack.push(Value::Str(text.into()));
        Ok(())
    }

    fn pop(&mut self) -> Result<Value> {
        match self.stack.pop() {
            None | Some(Value::Mark) => Err(damaged()),
            Some(value) => Ok(value),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.stack.iter().rposition(|value| *value == Value::Mark).ok_or_else(damaged)?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn append(&mut self, items: Vec<Value>) -> Result<()> {
        match self.stack.last() {
            Some(Value::List(id)) => self.heap.lists.get_mut(*id).ok_or_else(damaged)?.extend(items),
            _ => return Err(damaged()),
        }
        Ok(())
    }

    fn set(&mut self, entries: Vec<(Value, Value)>) -> Result<()> {
        match self.stack.last() {
            Some(Value::Dict(id)) => self.heap.dicts.get_mut(*id).ok_or_else(damaged)?.extend(entries),
            _ => return Err(damaged()),
        }
        Ok(())
    }

    fn remember(&mut self, key: usize) -> Result<()> {
        let top = self.stack.last().cloned().ok_or_else(damaged)?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Result<()> {
        let value = self.memo.get(&key).cloned().ok_or_else(damaged)?;
        self.stack.push(value);
        Ok(())
    }
}

fn pairs(items: Vec<Value>) -> Result<Vec<(Value, Value)>> {
    if !items.len().is_multiple_of(2) {
        return Err(damaged());
    }
    let mut items = items.into_iter();
    Ok(std::iter::from_fn(|| items.next().zip(items.next())).collect())
}

fn long(bytes: &[u8]) -> Value {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    match wide.get_mut(..bytes.len()) {
        Some(low) => {
            low.copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        }
        None => Value::Long(bytes.into()),
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N]> {
    let (front, rest) = input.split_first_chunk::<N>().ok_or_else(truncated)?;
    *input = rest;
    Ok(*front)
}

fn bytes<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (front, rest) = input.split_at_checked(length).ok_or_else(truncated)?;
    *input = rest;
    Ok(front)
}

fn line<'a>(input: &mut &'a [u8]) -> Result<&'a str> {
    let end = input.iter().position(|&b| b == b'\n').ok_or_else(truncated)?;
    let text = std::str::from_utf8(bytes(input, end)?).map_err(|_| damaged())?;
    take::<1>(input)?;
    Ok(text)
}

fn truncated() -> String {
    "ends in the middle of its pickle".to_owned()
}

pub(super) fn damaged() -> String {
    "holds a damaged pickle".to_owned()
}
