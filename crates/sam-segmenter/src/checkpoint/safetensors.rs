//! The safetensors format: our own files, and pretrained weights that were converted to it.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use tch::{Kind, Tensor};

use super::Record;
use crate::architecture::Family;
use crate::error::WeightsError;

/// Key of the family in a file's own metadata.
const FAMILY: &str = "family";

/// Whether the bytes begin as a safetensors file does: a header length that fits the file, then a JSON object.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*length) <= 100_000_000 && rest.first() == Some(&b'{')
}

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<(BTreeMap<String, Tensor>, Record), WeightsError> {
    let broken = |e: SafeTensorError| WeightsError::malformed(path, format!("not a whole safetensors file: {e}"));
    let file = SafeTensors::deserialize(bytes).map_err(broken)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let family = header.metadata().as_ref().and_then(|m| m.get(FAMILY)).and_then(|name| Family::named(name));
    let tensors = file
        .iter()
        .map(|(name, view)| {
            let kind = kind_of(view.dtype()).ok_or_else(|| {
                WeightsError::malformed(path, format!("'{name}' has the unsupported type {:?}", view.dtype()))
            })?;
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            let tensor = Tensor::f_from_data_size(view.data(), &shape, kind).map_err(WeightsError::torch(path))?;
            Ok((name.to_owned(), tensor))
        })
        .collect::<Result<_, _>>()?;
    Ok((tensors, Record { family }))
}

/// Writes contiguous copies of the tensors, under a temporary name first, so that `path` is never half a file.
///
/// Floating point tensors become f32, integers i64.
pub(crate) fn write(path: &Path, tensors: &[(String, Tensor)], record: &Record) -> Result<(), WeightsError> {
    let data: Vec<(Dtype, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(_, tensor)| bytes_of(tensor))
        .collect::<Result<_, _>>()
        .map_err(WeightsError::torch(path))?;
    let broken = |e: SafeTensorError| WeightsError::malformed(path, format!("cannot be written: {e}"));
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .zip(&data)
        .map(|((name, _), (dtype, shape, bytes))| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<_, _>>()
        .map_err(broken)?;
    let metadata = record.family.map(|family| HashMap::from([(FAMILY.to_owned(), family.name().to_owned())]));
    let bytes = safetensors::serialize(views, metadata).map_err(broken)?;

    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    write_whole(&temporary, &bytes).and_then(|()| std::fs::rename(&temporary, path)).map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        WeightsError::Io { path: path.to_owned(), source }
    })
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn bytes_of(tensor: &Tensor) -> Result<(Dtype, Vec<usize>, Vec<u8>), tch::TchError> {
    let (kind, dtype) = if tensor.is_floating_point() { (Kind::Float, Dtype::F32) } else { (Kind::Int64, Dtype::I64) };
    let tensor = tensor.detach().f_to_device(tch::Device::Cpu)?.f_to_kind(kind)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok((dtype, tensor.size().iter().map(|&n| n as usize).collect(), bytes))
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}
