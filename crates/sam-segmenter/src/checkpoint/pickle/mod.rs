//! A pickle reader for state dictionaries that can build plain data and nothing else.
//!
//! Invariant: no name in the file is ever looked up or called; of all globals only those in [`Global`] are understood, and
//! only those of `globals::beside_the_weights` are passed over.
//! Values live in an arena and refer to each other by number, so hostile nesting can neither overflow the stack nor blow
//! up memory: each opcode adds at most one node.

mod globals;

use std::collections::HashMap;

use tch::Kind;

use self::globals::Global;

/// As many as libtorch's tensors can have.
const MOST_DIMENSIONS: usize = 64;
/// PyTorch writes a number.
const MOST_KEY_BYTES: usize = 64;

/// What a pickle says: a value by its number, to be looked up in [`Pickle`].
pub(super) type Handle = usize;

/// A parsed pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    root: Handle,
}

/// A value; compound ones refer to their parts.
#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool,
    Int(i64),
    Float,
    Text(String),
    Tuple(Vec<Handle>),
    List(Vec<Handle>),
    Dict(Vec<(Handle, Handle)>),
    Global(Global),
    Storage(Storage),
    Tensor(TensorPlan),
    /// What a training script kept beside the weights, by the name of its class; it is not made.
    Foreign(String),
}

/// A block of numbers in the archive.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub(super) kind: Kind,
    /// Name of the archive's entry under `data/`.
    pub(super) key: String,
    pub(super) len: u64,
}

/// A strided view of a storage; counts in elements.
#[derive(Clone, Debug)]
pub(super) struct TensorPlan {
    pub(super) storage: Storage,
    pub(super) offset: i64,
    pub(super) size: Vec<i64>,
    pub(super) stride: Vec<i64>,
}

impl Pickle {
    /// Interprets the opcodes (protocols 2 to 5).
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine {
            input: bytes,
            at: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let root = machine.run().map_err(|what| format!("pickle, byte {}: {what}", machine.at))?;
        Ok(Self { nodes: machine.nodes, root })
    }

    pub(super) fn root(&self) -> &Node {
        &self.nodes[self.root]
    }

    pub(super) fn node(&self, handle: Handle) -> &Node {
        &self.nodes[handle]
    }

    pub(super) fn text(&self, handle: Handle) -> Option<&str> {
        match self.node(handle) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Handle>,
    /// Heights of the stack at which marks were set.
    marks: Vec<usize>,
    memo: HashMap<u32, Handle>,
}

type Step<T = ()> = Result<T, String>;

impl Machine<'_> {
    fn run(&mut self) -> Step<Handle> {
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    /// One opcode; the letters are those of Python's `pickletools`.
    fn step(&mut self, opcode: u8) -> Step {
        match opcode {
            0x80 => match self.byte()? {
                2..=5 => Ok(()),
                other => Err(format!("protocol {other}, expected 2 to 5")),
            },
            0x95 => self.take(8).map(|_| ()), // FRAME
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'N' => self.push(Node::None),
            0x88 | 0x89 => self.push(Node::Bool),
            b'K' => self.number::<1>(|b| b[0].into()),
            b'M' => self.number::<2>(|b| u16::from_le_bytes(b).into()),
            b'J' => self.number::<4>(|b| i32::from_le_bytes(b).into()),
            0x8a => self.long(),
            b'G' => {
                self.take(8)?;
                self.push(Node::Float)
            }
            b'C' => self.bytes::<1>(|b| b[0].into()),
            b'B' => self.bytes::<4>(|b| u32::from_le_bytes(b).into()),
            0x8e => self.bytes::<8>(u64::from_le_bytes),
            0x8c => self.text::<1>(|b| b[0].into()),
            b'X' => self.text::<4>(|b| u32::from_le_bytes(b).into()),
            0x8d => self.text::<8>(u64::from_le_bytes),
            b')' => self.push(Node::Tuple(Vec::new())),
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Node::Tuple(items))
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items))
            }
            b']' => self.push(Node::List(Vec::new())),
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])
            }
            0x8f => self.push(Node::Foreign("a set".into())),
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.extend_list(items)
            }
            0x91 => {
                self.pop_to_mark()?;
                self.push(Node::Foreign("a frozen set".into()))
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b's' => {
                let pair = self.pop_many(2)?;
                self.extend_dict(&pair)
            }
            b'u' => {
                let pairs = self.pop_to_mark()?;
                self.extend_dict(&pairs)
            }
            b'q' => {
                let key = self.byte()?.into();
                self.remember(key)
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)
            }
            0x94 => self.remember(self.memo.len() as u32), // MEMOIZE
            b'h' => {
                let key = self.byte()?.into();
                self.recall(key)
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)
            }
            0x93 => {
                let names = self.pop_many(2)?;
                match (&self.nodes[names[0]], &self.nodes[names[1]]) {
                    (Node::Text(module), Node::Text(name)) => {
                        let (module, name) = (module.clone(), name.clone());
                        self.global(&module, &name)
                    }
                    _ => Err("a global whose name is not text".into()),
                }
            }
            b'Q' => self.persistent(),
            b'R' => self.reduce(),
            0x81 => self.new_object(),
            b'b' => self.build(),
            other => Err(format!("refuses opcode 0x{other:02x}: a state dictionary has no need of it")),
        }
    }

    fn take(&mut self, count: usize) -> Step<&[u8]> {
        let rest = &self.input[self.at..];
        let bytes =
            rest.get(..count).ok_or_else(|| format!("{count} bytes expected, {} left: truncated", rest.len()))?;
        self.at += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.input[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').ok_or("a name without an end: truncated")?;
        let line = utf8(&rest[..end])?;
        self.at += end + 1;
        Ok(line)
    }

    #[expect(clippy::unnecessary_wraps, reason = "an instruction's result, like its siblings'")]
    fn push(&mut self, node: Node) -> Step {
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
        Ok(())
    }

    fn number<const N: usize>(&mut self, read: impl Fn([u8; N]) -> i64) -> Step {
        let value = read(self.array()?);
        self.push(Node::Int(value))
    }

    /// LONG1: little-endian two's complement of up to 255 bytes; what is beyond i64 (a generator's state) means nothing here.
    fn long(&mut self) -> Step {
        let count = self.byte()?.into();
        let bytes = self.take(count)?;
        if count > 8 {
            return self.push(Node::Foreign("an integer beyond 64 bits".into()));
        }
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut array = [fill; 8];
        array[..count].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(array)))
    }

    fn text<const N: usize>(&mut self, length: impl Fn([u8; N]) -> u64) -> Step {
        let count = usize::try_from(length(self.array()?)).map_err(|e| e.to_string())?;
        let text = utf8(self.take(count)?)?;
        self.push(Node::Text(text))
    }

    fn bytes<const N: usize>(&mut self, length: impl Fn([u8; N]) -> u64) -> Step {
        let count = usize::try_from(length(self.array()?)).map_err(|e| e.to_string())?;
        self.take(count)?;
        self.push(Node::Foreign("bytes".into()))
    }

    /// The stack below the last mark belongs to what comes later.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Handle> {
        if self.stack.len() <= self.floor() {
            return Err("a value is missing on the stack".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn pop_many(&mut self, count: usize) -> Step<Vec<Handle>> {
        if self.stack.len() < self.floor() + count {
            return Err("values are missing on the stack".into());
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Handle>> {
        let mark = self.marks.pop().ok_or("a mark is missing on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Step<&mut Node> {
        if self.stack.len() <= self.floor() {
            return Err("a value is missing on the stack".into());
        }
        let top = self.stack[self.stack.len() - 1];
        Ok(&mut self.nodes[top])
    }

    fn extend_list(&mut self, items: Vec<Handle>) -> Step {
        match self.top()? {
            Node::List(list) => list.extend(items),
            Node::Foreign(_) => {}
            other => return Err(format!("items for {}, expected a list", other.what())),
        }
        Ok(())
    }

    fn extend_dict(&mut self, pairs: &[Handle]) -> Step {
        let (pairs, []) = pairs.as_chunks::<2>() else { return Err("a key without a value".into()) };
        match self.top()? {
            Node::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Node::Foreign(_) => {}
            other => return Err(format!("keys for {}, expected a dictionary", other.what())),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Step {
        self.top()?;
        self.memo.insert(key, self.stack[self.stack.len() - 1]);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Step {
        let handle = *self.memo.get(&key).ok_or_else(|| format!("nothing is remembered under {key}"))?;
        self.stack.push(handle);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Step {
        let node = globals::named(module, name)?;
        self.push(node)
    }

    /// BINPERSID: `('storage', class, key, location, length)`.
    fn persistent(&mut self) -> Step {
        let id = self.pop()?;
        let storage = match self.parts(id).as_deref() {
            Some([Node::Text(tag), Node::Global(Global::Storage(kind)), Node::Text(key), _, Node::Int(len)])
                if tag == "storage" =>
            {
                let len = u64::try_from(*len).map_err(|_| format!("a storage of {len} elements"))?;
                if key.len() > MOST_KEY_BYTES {
                    return Err(format!("a storage's name of {} bytes, expected at most {MOST_KEY_BYTES}", key.len()));
                }
                Storage { kind: *kind, key: key.clone(), len }
            }
            _ => return Err("a persistent id that is not a storage".into()),
        };
        self.push(Node::Storage(storage))
    }

    fn reduce(&mut self) -> Step {
        let call = self.pop_many(2)?;
        let global = match &self.nodes[call[0]] {
            Node::Global(global) => *global,
            Node::Foreign(name) => {
                let name = name.clone();
                return self.push(Node::Foreign(name));
            }
            other => return Err(format!("a call of {}, expected a known function", other.what())),
        };
        let arguments = self.parts(call[1]).ok_or("a call without a tuple of arguments")?;
        match (global, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.push(Node::Dict(Vec::new())),
            (Global::RebuildTensor, [Node::Storage(storage), Node::Int(offset), size, stride, ..]) => {
                let plan = TensorPlan {
                    storage: storage.clone(),
                    offset: *offset,
                    size: self.integers(size)?,
                    stride: self.integers(stride)?,
                };
                self.push(Node::Tensor(plan))
            }
            (Global::RebuildParameter, [Node::Tensor(plan), ..]) => {
                let plan = plan.clone();
                self.push(Node::Tensor(plan))
            }
            _ => Err(format!("{global:?} with arguments that it doesn't take")),
        }
    }

    /// NEWOBJ: an instance of a class.
    fn new_object(&mut self) -> Step {
        let call = self.pop_many(2)?;
        match &self.nodes[call[0]] {
            Node::Foreign(name) => {
                let name = name.clone();
                self.push(Node::Foreign(name))
            }
            other => Err(format!("refuses an instance of {}: a state dictionary has no need of it", other.what())),
        }
    }

    /// BUILD sets attributes (`_metadata` of a state dictionary); they carry nothing that is needed here.
    fn build(&mut self) -> Step {
        self.pop()?;
        match self.top()? {
            Node::Dict(_) | Node::Foreign(_) => Ok(()),
            other => Err(format!("attributes for {}, expected a dictionary", other.what())),
        }
    }

    fn parts(&self, tuple: Handle) -> Option<Vec<&Node>> {
        match &self.nodes[tuple] {
            Node::Tuple(items) => Some(items.iter().map(|&item| &self.nodes[item]).collect()),
            _ => None,
        }
    }

    fn integers(&self, node: &Node) -> Step<Vec<i64>> {
        let Node::Tuple(items) = node else { return Err(format!("a tensor's shape is {}", node.what())) };
        // Each tensor copies its shape, which a hostile file can name again and again.
        if items.len() > MOST_DIMENSIONS {
            return Err(format!("a tensor of {} dimensions, expected at most {MOST_DIMENSIONS}", items.len()));
        }
        let integer = |&item: &Handle| match self.nodes[item] {
            Node::Int(value) => Ok(value),
            ref other => Err(format!("a tensor's shape holds {}", other.what())),
        };
        items.iter().map(integer).collect()
    }
}

impl Node {
    /// What it is, for messages.
    pub(super) fn what(&self) -> &str {
        match self {
            Self::None => "None",
            Self::Bool => "a bool",
            Self::Int(_) => "an integer",
            Self::Float => "a float",
            Self::Text(_) => "text",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) => "a function or class",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
            Self::Foreign(name) => name,
        }
    }
}

fn utf8(bytes: &[u8]) -> Step<String> {
    String::from_utf8(bytes.to_vec()).map_err(|e| format!("text that is not UTF-8: {e}"))
}
