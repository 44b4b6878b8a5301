//! The container of `torch.save`: a zip archive with `…/data.pkl` and one entry per storage under `…/data/`.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::path::Path;

use tch::Tensor;
use zip::ZipArchive;

use super::pickle::{Handle, Node, Pickle, Storage, TensorPlan};
use crate::error::WeightsError;

/// State dictionaries are small; a pickle beyond this is something else.
const MAX_PICKLE_BYTES: u64 = 64 << 20;

/// Deflate cannot compress better than this, so an entry that claims more is a bomb.
const MAX_DEFLATE_RATIO: u64 = 1032;

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    read_archive(bytes).map_err(|what| WeightsError::malformed(path, what))
}

fn read_archive(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| {
        format!("a zip archive without a readable directory, probably truncated ({} bytes): {e}", bytes.len())
    })?;
    let pickle_name = archive
        .file_names()
        .filter_map(Result::ok)
        .find(|name| name.ends_with("/data.pkl") || name == "data.pkl")
        .ok_or("a zip archive without 'data.pkl', so not from torch.save")?
        .into_owned();
    let prefix = pickle_name.trim_end_matches("data.pkl").to_owned();
    if let Ok(order) = entry(&mut archive, &format!("{prefix}byteorder"), 16)
        && order != b"little"
    {
        return Err(format!("its byte order is '{}', expected 'little'", String::from_utf8_lossy(&order)));
    }
    let pickle = Pickle::parse(&entry(&mut archive, &pickle_name, MAX_PICKLE_BYTES)?)?;

    let mut storages = HashMap::new();
    let mut tensors = BTreeMap::new();
    for &(key, value) in state_dict(&pickle)? {
        let name =
            pickle.text(key).ok_or_else(|| format!("a key that is {}, expected text", pickle.node(key).what()))?;
        let Node::Tensor(plan) = pickle.node(value) else {
            return Err(format!("'{name}' is {}, expected a tensor", pickle.node(value).what()));
        };
        let tensor = tensor(&mut archive, &prefix, &mut storages, plan).map_err(|what| format!("'{name}': {what}"))?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// The dictionary that holds the tensors: the root itself, or what stands under `model` or `state_dict` in it.
fn state_dict(pickle: &Pickle) -> Result<&[(Handle, Handle)], String> {
    let Node::Dict(root) = pickle.root() else {
        return Err(format!("holds {}, expected a dictionary of tensors", pickle.root().what()));
    };
    let nested = ["model", "state_dict"].iter().find_map(|wanted| {
        let (_, value) = root.iter().find(|(key, _)| pickle.text(*key) == Some(wanted))?;
        match pickle.node(*value) {
            Node::Dict(dict) => Some(dict.as_slice()),
            _ => None,
        }
    });
    Ok(nested.unwrap_or(root))
}

fn tensor(
    archive: &mut Archive<'_>,
    prefix: &str,
    storages: &mut HashMap<String, Tensor>,
    plan: &TensorPlan,
) -> Result<Tensor, String> {
    check_bounds(plan)?;
    if !storages.contains_key(&plan.storage.key) {
        storages.insert(plan.storage.key.clone(), read_storage(archive, prefix, &plan.storage)?);
    }
    let storage = &storages[&plan.storage.key];
    if storage.kind() != plan.storage.kind || storage.numel() as u64 != plan.storage.len {
        return Err(format!("storage '{}' is declared twice, and differently", plan.storage.key));
    }
    copy_of_view(storage, plan).map_err(|e| e.to_string())
}

/// A contiguous copy: tensors that share a storage in the file must not share it in the model.
fn copy_of_view(storage: &Tensor, plan: &TensorPlan) -> Result<Tensor, tch::TchError> {
    let mut copy = Tensor::f_empty(&plan.size, (storage.kind(), tch::Device::Cpu))?;
    copy.f_copy_(&storage.f_as_strided(&plan.size, &plan.stride, plan.offset)?)?;
    Ok(copy)
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

fn read_storage(archive: &mut Archive<'_>, prefix: &str, storage: &Storage) -> Result<Tensor, String> {
    let Storage { kind, key, len } = storage;
    let expected = len.checked_mul(kind.elt_size_in_bytes() as u64).ok_or("a storage beyond all memory")?;
    let bytes = entry(archive, &format!("{prefix}data/{key}"), expected)?;
    if bytes.len() as u64 != expected {
        return Err(format!("storage '{key}' has {} bytes, expected {expected} for {len} elements", bytes.len()));
    }
    Tensor::f_from_data_size(&bytes, &[*len as i64], *kind).map_err(|e| e.to_string())
}

/// The content of an archive's entry, of at most `limit` bytes; its check sum is verified on the way.
fn entry(archive: &mut Archive<'_>, name: &str, limit: u64) -> Result<Vec<u8>, String> {
    let file = archive.by_name(name).map_err(|e| format!("'{name}' cannot be read from the archive: {e}"))?;
    let (size, packed) = (file.size(), file.compressed_size());
    if size > limit || size > packed.saturating_mul(MAX_DEFLATE_RATIO) {
        return Err(format!("'{name}' claims {size} bytes ({packed} packed), expected at most {limit}"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| format!("'{name}' cannot be read: {e}"))?;
    Ok(bytes)
}
