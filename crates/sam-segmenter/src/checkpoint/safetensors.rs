//! The safetensors format: our own files, and pretrained weights that were converted to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use tch::{Kind, Tensor};
use whole_file::Unfinished;

use super::Record;
use super::shapes::Shapes;
use crate::error::WeightsError;

/// The format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The header begins behind its length.
const HEADER_START: u64 = 8;

/// Whether the bytes begin as a safetensors file does: a header length that fits the format, then a JSON object.
pub(super) fn looks_like(start: &[u8]) -> bool {
    let Some((length, rest)) = start.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*length) <= MAX_HEADER_BYTES && rest.first() == Some(&b'{')
}

/// A file whose header was read and fits its length.
pub(super) struct SafetensorsFile {
    file: File,
    places: BTreeMap<String, Place>,
}

/// Where a tensor lies.
struct Place {
    start: u64,
    bytes: usize,
    shape: Vec<i64>,
    kind: Kind,
}

impl SafetensorsFile {
    /// `length`: of the file in bytes.
    pub(super) fn open(mut file: File, length: u64) -> Result<(Self, Record), String> {
        let broken = |e: &dyn std::fmt::Display| format!("not a whole safetensors file: {e}");
        let mut header_bytes = [0; HEADER_START as usize];
        file.rewind().and_then(|()| file.read_exact(&mut header_bytes)).map_err(|e| broken(&e))?;
        let header_bytes = u64::from_le_bytes(header_bytes);
        let data_start = HEADER_START + header_bytes;
        if data_start > length {
            return Err(broken(&format_args!("its header claims {header_bytes} bytes, the file has {length}")));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact(&mut header).map_err(|e| broken(&e))?;
        // Checks as well that the tensors lie behind one another, each as long as its shape says.
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| broken(&e))?;
        let (found, expected) = (length - data_start, metadata.data_len() as u64);
        if found != expected {
            return Err(broken(&format_args!("{found} bytes of tensors, expected {expected}")));
        }
        let places = metadata.tensors().into_iter().map(|(name, info)| {
            let kind = kind_of(info.dtype).ok_or_else(|| format!("'{name}' has the unsupported type {:?}", info.dtype));
            let (from, to) = info.data_offsets;
            let shape = info.shape.iter().map(|&n| n as i64).collect();
            Ok((name, Place { start: data_start + from as u64, bytes: to - from, shape, kind: kind? }))
        });
        let places = places.collect::<Result<_, String>>()?;
        let record = metadata.metadata().as_ref().map_or_else(|| Ok(Record::default()), Record::from_metadata)?;
        Ok((Self { file, places }, record))
    }

    pub(super) fn shapes(&self) -> Shapes {
        self.places.iter().map(|(name, place)| (name.clone(), place.shape.clone())).collect()
    }

    /// Reads one tensor.
    pub(super) fn tensor(&mut self, name: &str) -> Result<Tensor, String> {
        let Place { start, bytes, shape, kind } = self.places.get(name).ok_or("it is not in the file")?;
        let mut data = vec![0; *bytes];
        let read = self.file.seek(SeekFrom::Start(*start)).and_then(|_| self.file.read_exact(&mut data));
        read.map_err(|e| format!("cannot be read: {e}"))?;
        Tensor::f_from_data_size(&data, shape, *kind).map_err(|e| e.to_string())
    }
}

/// Writes the tensors one by one; `path` is never half a file.
///
/// Floating point tensors become f32, integers i64.
pub(crate) fn write(path: &Path, tensors: &[(String, Tensor)], record: &Record) -> Result<(), WeightsError> {
    // As the format's own writer orders them: the widest type first, then by name.
    let mut tensors: Vec<&(String, Tensor)> = tensors.iter().collect();
    tensors.sort_by_key(|(name, tensor)| (tensor.is_floating_point(), name));
    let mut header =
        header(&tensors, record).map_err(|e| WeightsError::malformed(path, format!("cannot be written: {e}")))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let io = WeightsError::io(path);
    let mut writer = BufWriter::new(Unfinished::beside(path).map_err(&io)?);
    writer.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| writer.write_all(&header)).map_err(&io)?;
    for (_, tensor) in tensors {
        writer.write_all(&bytes_of(tensor).map_err(WeightsError::torch(path))?).map_err(&io)?;
    }
    writer.into_inner().map_err(|e| io(e.into_error()))?.finish().map_err(&io)
}

/// Sorted by names, so that the same model gives the same bytes.
fn header(tensors: &[&(String, Tensor)], record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let mut end = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let (start, (kind, dtype)) = (end, stored_type(tensor));
        end += tensor.numel() * kind.elt_size_in_bytes();
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        Ok((name.as_str(), serde_json::to_value(TensorInfo { dtype, shape, data_offsets: (start, end) })?))
    });
    let mut entries = infos.collect::<Result<BTreeMap<&str, serde_json::Value>, serde_json::Error>>()?;
    entries.insert("__metadata__", serde_json::to_value(record.metadata())?);
    serde_json::to_vec(&entries)
}

fn stored_type(tensor: &Tensor) -> (Kind, Dtype) {
    if tensor.is_floating_point() { (Kind::Float, Dtype::F32) } else { (Kind::Int64, Dtype::I64) }
}

fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>, tch::TchError> {
    let (kind, _) = stored_type(tensor);
    let tensor = tensor.detach().f_to_device(tch::Device::Cpu)?.f_to_kind(kind)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
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
