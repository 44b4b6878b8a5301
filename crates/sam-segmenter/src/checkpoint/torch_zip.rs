//! The container of `torch.save`: a zip archive with `…/data.pkl` and one entry per storage under `…/data/`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};

use tch::Tensor;
use zip::ZipArchive;

use super::pickle::{Handle, Node, Pickle, Storage, TensorPlan};
use super::shapes::Shapes;

/// State dictionaries are small; a pickle beyond this is something else.
const MAX_PICKLE_BYTES: u64 = 64 << 20;

/// The names under which training scripts keep the model, outermost first where they are nested.
pub(super) const CONTAINERS: [&str; 4] = ["model", "state_dict", "model_state_dict", "net"];

/// More of them than anyone nests; a hostile dictionary can hold itself.
const MOST_NESTED: usize = 3;

/// Keys that a message shows.
const KEYS_SHOWN: usize = 8;

/// Deflate cannot compress better than this, so an entry that claims more is a bomb.
const MAX_DEFLATE_RATIO: u64 = 1032;

type Archive = ZipArchive<BufReader<File>>;

/// An archive whose pickle was read and whose tensors all lie in their storages.
pub(super) struct TorchZip {
    archive: Archive,
    /// The folder of its entries.
    folder: String,
    /// The keys of the dictionary that holds the tensors.
    containers: Vec<&'static str>,
    plans: BTreeMap<String, TensorPlan>,
    /// The storages that more than one tensor lies in.
    shared: HashMap<String, Shared>,
}

/// A storage that is kept until the last of its tensors was read.
struct Shared {
    left: usize,
    storage: Option<Tensor>,
}

impl TorchZip {
    /// `length`: of the file in bytes.
    pub(super) fn open(file: File, length: u64) -> Result<Self, String> {
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| {
            format!("a zip archive without a readable directory, probably truncated ({length} bytes): {e}")
        })?;
        let pickle_name = archive
            .file_names()
            .filter_map(Result::ok)
            .find(|name| name.ends_with("/data.pkl") || name == "data.pkl")
            .ok_or("a zip archive without 'data.pkl', so not from torch.save")?
            .into_owned();
        let folder = pickle_name.trim_end_matches("data.pkl").to_owned();
        if let Ok(order) = entry(&mut archive, &format!("{folder}byteorder"), 16)
            && order != b"little"
        {
            return Err(format!("its byte order is '{}', expected 'little'", String::from_utf8_lossy(&order)));
        }
        let pickle = Pickle::parse(&entry(&mut archive, &pickle_name, MAX_PICKLE_BYTES)?)?;
        let (containers, dict) = state_dict(&pickle)?;
        let plans = plans(&pickle, dict)?;
        let shared = check_storages(&mut archive, &folder, &plans, length)?;
        Ok(Self { archive, folder, containers, plans, shared })
    }

    pub(super) fn shapes(&self) -> Shapes {
        self.plans.iter().map(|(name, plan)| (name.clone(), plan.size.clone())).collect()
    }

    /// The keys of the dictionary that holds the tensors, from the outermost on; none where it is the file's own.
    pub(super) fn containers(&self) -> &[&'static str] {
        &self.containers
    }

    /// Reads one tensor.
    pub(super) fn tensor(&mut self, name: &str) -> Result<Tensor, String> {
        let plan = self.plans.get(name).ok_or("it is not in the file")?;
        let Some(shared) = self.shared.get_mut(&plan.storage.key) else {
            let storage = read_storage(&mut self.archive, &self.folder, &plan.storage)?;
            return if plan.is_whole() { storage.f_view(plan.size.as_slice()) } else { copy_of_view(&storage, plan) }
                .map_err(|e| e.to_string());
        };
        if shared.storage.is_none() {
            shared.storage = Some(read_storage(&mut self.archive, &self.folder, &plan.storage)?);
        }
        shared.left = shared.left.saturating_sub(1);
        let storage =
            if shared.left == 0 { shared.storage.take() } else { shared.storage.as_ref().map(Tensor::shallow_clone) };
        copy_of_view(&storage.ok_or("its storage was let go")?, plan).map_err(|e| e.to_string())
    }
}

impl TensorPlan {
    /// Whether it is all of its storage, in order.
    fn is_whole(&self) -> bool {
        let mut count = 1;
        let in_order = self.size.iter().zip(&self.stride).rev().all(|(&size, &stride)| {
            let expected = count;
            count *= size;
            size == 1 || stride == expected
        });
        in_order && self.offset == 0 && count as u64 == self.storage.len
    }
}

/// A pickled dictionary.
type Dict<'a> = &'a [(Handle, Handle)];

/// Where each tensor of the state dictionary lies.
fn plans(pickle: &Pickle, dict: Dict) -> Result<BTreeMap<String, TensorPlan>, String> {
    let mut plans = BTreeMap::new();
    for &(key, value) in dict {
        let name =
            pickle.text(key).ok_or_else(|| format!("a key that is {}, expected text", pickle.node(key).what()))?;
        let Node::Tensor(plan) = pickle.node(value) else {
            return Err(format!(
                "'{name}' is {}, expected a tensor as its neighbours are: a state dictionary stands alone, or under {}",
                pickle.node(value).what(),
                containers()
            ));
        };
        check_bounds(plan).map_err(|what| format!("'{name}': {what}"))?;
        plans.insert(name.to_owned(), plan.clone());
    }
    Ok(plans)
}

/// The dictionary that holds the tensors, and the keys that lead to it.
fn state_dict(pickle: &Pickle) -> Result<(Vec<&'static str>, Dict<'_>), String> {
    let Node::Dict(root) = pickle.root() else {
        return Err(format!("holds {}, expected a dictionary of tensors", pickle.root().what()));
    };
    if let Some((mut keys, dict)) = contained(pickle, root, MOST_NESTED) {
        keys.reverse();
        return Ok((keys, dict));
    }
    if root.is_empty() || has_tensors(pickle, root) {
        Ok((Vec::new(), root))
    } else {
        Err(without_tensors(pickle, root))
    }
}

/// What stands under one of [`CONTAINERS`] and holds tensors, with the keys that lead there, the innermost first. Some files
/// keep other settings under the same names.
fn contained<'a>(pickle: &'a Pickle, dict: Dict<'a>, depth: usize) -> Option<(Vec<&'static str>, Dict<'a>)> {
    CONTAINERS.iter().filter(|_| depth > 0).find_map(|&wanted| {
        let (_, value) = dict.iter().find(|(key, _)| pickle.text(*key) == Some(wanted))?;
        let Node::Dict(inner) = pickle.node(*value) else { return None };
        let own = || has_tensors(pickle, inner).then(|| (Vec::new(), inner.as_slice()));
        let (mut keys, found) = contained(pickle, inner, depth - 1).or_else(own)?;
        keys.push(wanted);
        Some((keys, found))
    })
}

fn has_tensors(pickle: &Pickle, dict: Dict) -> bool {
    dict.iter().any(|(_, value)| matches!(pickle.node(*value), Node::Tensor(_)))
}

/// What there is instead, and the way out where tensors stand under another key.
fn without_tensors(pickle: &Pickle, root: Dict) -> String {
    let text =
        |key: Handle| pickle.text(key).map_or("a key that is no text", |key| &key[..key.floor_char_boundary(40)]);
    let shown: Vec<String> = root
        .iter()
        .take(KEYS_SHOWN)
        .map(|&(key, value)| format!("'{}' ({})", text(key), pickle.node(value).what()))
        .collect();
    let more = root.len().saturating_sub(KEYS_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let holder = root.iter().find(|(_, value)| match pickle.node(*value) {
        Node::Dict(dict) => has_tensors(pickle, dict),
        _ => false,
    });
    let way_out = holder.map_or_else(String::new, |&(key, _)| {
        format!("; '{0}' holds tensors: save it alone, torch.save(torch.load(FILE)['{0}'], 'weights.pth')", text(key))
    });
    format!(
        "there is no tensor at its top nor under {}, where a state dictionary is expected; it has {}{more}{way_out}",
        containers(),
        shown.join(", ")
    )
}

fn containers() -> String {
    let quoted = CONTAINERS.map(|key| format!("'{key}'"));
    let [others @ .., last] = &quoted;
    format!("{} or {last}", others.join(", "))
}

/// Every element lies in the storage, and there are no more of them than the storage has.
fn check_bounds(plan: &TensorPlan) -> Result<(), String> {
    let TensorPlan { storage, offset, size, stride } = plan;
    let problem = || {
        let len = storage.len;
        format!("size {size:?} with stride {stride:?} at {offset} doesn't fit its storage of {len} elements")
    };
    if size.len() != stride.len() || size.iter().chain(stride).chain([offset]).any(|&n| n < 0) {
        return Err(problem());
    }
    let count = size.iter().try_fold(1_i64, |product, &n| product.checked_mul(n)).ok_or_else(problem)?;
    let last = size
        .iter()
        .zip(stride)
        .try_fold(*offset, |last, (&n, &step)| (n - 1).max(0).checked_mul(step)?.checked_add(last));
    let end = if count == 0 { *offset } else { last.and_then(|last| last.checked_add(1)).ok_or_else(problem)? };
    if count as u64 > storage.len || end as u64 > storage.len {
        return Err(problem());
    }
    Ok(())
}

/// Every storage is in the archive, as long as it is declared; the shared ones with the number of their tensors.
fn check_storages(
    archive: &mut Archive,
    folder: &str,
    plans: &BTreeMap<String, TensorPlan>,
    length: u64,
) -> Result<HashMap<String, Shared>, String> {
    let mut found: HashMap<&str, (&Storage, usize)> = HashMap::new();
    let mut packed_in_all = 0_u64;
    for (name, plan) in plans {
        let storage = &plan.storage;
        if let Some((first, count)) = found.get_mut(storage.key.as_str()) {
            if (first.kind, first.len) != (storage.kind, storage.len) {
                return Err(format!("'{name}': storage '{}' is declared twice, and differently", storage.key));
            }
            *count += 1;
            continue;
        }
        packed_in_all = packed_in_all
            .saturating_add(check_storage(archive, folder, storage).map_err(|what| format!("'{name}': {what}"))?);
        found.insert(&storage.key, (storage, 1));
    }
    if packed_in_all > length {
        return Err(format!("its storages claim {packed_in_all} bytes, but the file has {length}"));
    }
    let shared = found.into_iter().filter(|(_, (_, count))| *count > 1);
    Ok(shared.map(|(key, (_, left))| (key.to_owned(), Shared { left, storage: None })).collect())
}

/// Its length in the archive, packed.
fn check_storage(archive: &mut Archive, folder: &str, storage: &Storage) -> Result<u64, String> {
    let Storage { key, len, .. } = storage;
    let expected = storage.bytes()?;
    let name = format!("{folder}data/{key}");
    let file = archive.by_name(&name).map_err(|e| format!("'{name}' cannot be read from the archive: {e}"))?;
    if file.size() != expected {
        return Err(format!("storage '{key}' has {} bytes, expected {expected} for {len} elements", file.size()));
    }
    Ok(file.compressed_size())
}

impl Storage {
    fn bytes(&self) -> Result<u64, String> {
        let bytes = self.len.checked_mul(self.kind.elt_size_in_bytes() as u64);
        bytes.ok_or_else(|| format!("a storage of {} elements: beyond all memory", self.len))
    }
}

fn read_storage(archive: &mut Archive, folder: &str, storage: &Storage) -> Result<Tensor, String> {
    let bytes = entry(archive, &format!("{folder}data/{}", storage.key), storage.bytes()?)?;
    Tensor::f_from_data_size(&bytes, &[storage.len as i64], storage.kind).map_err(|e| e.to_string())
}

/// A contiguous copy: tensors that share a storage in the file must not share it in the model.
fn copy_of_view(storage: &Tensor, plan: &TensorPlan) -> Result<Tensor, tch::TchError> {
    let mut copy = Tensor::f_empty(&plan.size, (storage.kind(), tch::Device::Cpu))?;
    copy.f_copy_(&storage.f_as_strided(&plan.size, &plan.stride, plan.offset)?)?;
    Ok(copy)
}

/// The content of an archive's entry, of at most `limit` bytes; its check sum is verified on the way.
fn entry(archive: &mut Archive, name: &str, limit: u64) -> Result<Vec<u8>, String> {
    let file = archive.by_name(name).map_err(|e| format!("'{name}' cannot be read from the archive: {e}"))?;
    let (size, packed) = (file.size(), file.compressed_size());
    if size > limit || size > packed.saturating_mul(MAX_DEFLATE_RATIO) {
        return Err(format!("'{name}' claims {size} bytes ({packed} packed), expected at most {limit}"));
    }
    // What is packed is in the file, so that this can't ask for more than it has; a vector that grew would be larger.
    let mut bytes = Vec::with_capacity(size.min(packed) as usize);
    file.take(size + 1).read_to_end(&mut bytes).map_err(|e| format!("'{name}' cannot be read: {e}"))?;
    if bytes.len() as u64 != size {
        return Err(format!("'{name}' has {} bytes, expected {size}", bytes.len()));
    }
    Ok(bytes)
}
