//! Segmentations of 3D Slicer (`.seg.nrrd`): segments with names, each a value in a layer of the array.
//!
//! Format: Slicer's documentation, "Segmentation file (.seg.nrrd)". The same organ has another value in another file of the same
//! annotator, so segments are known by their names alone.

use super::content::{Bytes, memory};
use super::raster::Problem;
use super::voxels::{ByteOrder, Scalar, Scaling};
use super::{Volume, Voxels};
use crate::IngestError;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What the segments of a file become: values by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SegmentLabels {
    /// Names of segments, and the values that they get; where two overlap, the later one's counts. Segments of other names count for
    /// nothing.
    pub values: Vec<(String, i32)>,
    /// Of these names the file must have one at least.
    pub needed: Vec<String>,
}

/// A segment as the header has it.
struct Segment<'a> {
    name: &'a str,
    value: i64,
    layer: usize,
}

/// Whether key/value pairs of a header describe segments.
pub(super) fn are_there(pairs: &BTreeMap<String, String>) -> bool {
    pairs.keys().any(|key| segment_key(key).is_some())
}

/// The number and the rest of `Segment12_Name`.
fn segment_key(key: &str) -> Option<(usize, &str)> {
    let (number, rest) = key.strip_prefix("Segment")?.split_once('_')?;
    Some((number.parse().ok()?, rest))
}

/// The segments by number. Before there were layers, a segment had one of its own, with the value 1.
fn segments<'a>(pairs: &'a BTreeMap<String, String>, layers: usize) -> Vec<Segment<'a>> {
    let mut fields: BTreeMap<usize, HashMap<&str, &str>> = BTreeMap::new();
    for (key, value) in pairs {
        if let Some((number, field)) = segment_key(key) {
            fields.entry(number).or_default().insert(field, value);
        }
    }
    let segment = |(number, fields): (usize, HashMap<&str, &'a str>)| {
        let whole = |name: &str| fields.get(name).and_then(|text| text.trim().parse::<i64>().ok());
        let layer = whole("Layer")
            .map_or(if layers > 1 { number } else { 0 }, |layer| usize::try_from(layer).unwrap_or(usize::MAX));
        let name = fields.get("Name").or_else(|| fields.get("ID")).copied().unwrap_or_default().trim();
        Segment { name, value: whole("LabelValue").unwrap_or(1), layer }
    };
    fields.into_iter().map(segment).collect()
}

/// The volume with the values that its segments' names have. In `volume` the first axis holds `layers` values of each voxel.
pub(super) fn relabelled(
    error: Problem<'_>,
    volume: Volume,
    layers: usize,
    pairs: &BTreeMap<String, String>,
    labels: &SegmentLabels,
) -> Result<Volume, IngestError> {
    let segments = segments(pairs, layers);
    let list = || {
        let names: Vec<String> = segments.iter().map(|segment| format!("'{}'", segment.name.escape_debug())).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let named = |name: &str| segments.iter().filter(|segment| segment.name.eq_ignore_ascii_case(name)).count();
    if let Some((name, _)) = labels.values.iter().find(|(name, _)| named(name) > 1) {
        return Err(error.header(format!(
            "it has several segments with the name '{name}' (its segments: {}), expected one: rename the others",
            list()
        )));
    }
    if !labels.needed.iter().any(|name| named(name) == 1) {
        return Err(error.header(format!(
            "it has no segment with the name '{}'; its segments: {}. Rename the one that is meant, or name it in the manifest's \
             `labels` and `target_labels`",
            labels.needed.join("' or '"),
            list()
        )));
    }
    // By layer and value; a segment that is not asked for is background.
    let mut values: Vec<HashMap<i64, (usize, i32)>> = vec![HashMap::from([(0, (0, 0))]); layers];
    for segment in &segments {
        let wanted = labels.values.iter().position(|(name, _)| segment.name.eq_ignore_ascii_case(name));
        let meaning = wanted.map_or((0, 0), |at| (at + 1, labels.values[at].1));
        let Some(layer) = values.get_mut(segment.layer) else {
            return Err(error.header(format!(
                "its segment '{}' is in layer {}, but there are {layers}, counted from 0",
                segment.name.escape_debug(),
                segment.layer
            )));
        };
        if layer.insert(segment.value, meaning).is_some() {
            return Err(error.header(format!(
                "its segment '{}' has the value {} in layer {}, which another has, or the background",
                segment.name.escape_debug(),
                segment.value,
                segment.layer
            )));
        }
    }
    let shape = [volume.shape[0] / layers, volume.shape[1], volume.shape[2]];
    let count: usize = shape.iter().product();
    let mut content = memory(error.path, (count * size_of::<i32>()) as u64)?;
    for (voxel, to) in content.chunks_exact_mut(size_of::<i32>()).take(count).enumerate() {
        let mut found = (0, 0);
        for (layer, values) in values.iter().enumerate() {
            let value = volume.voxels.get(voxel * layers + layer);
            let Some(&meaning) = values.get(&(value as i64)) else {
                return Err(error.header(format!(
                    "its voxel {voxel} has the value {value} in layer {layer}, which is that of no segment; its segments: {}",
                    list()
                )));
            };
            found = found.max(meaning);
        }
        to.copy_from_slice(&found.1.to_le_bytes());
    }
    let voxels =
        Voxels::new(Arc::new(Bytes::Inflated(content)), 0, count, Scalar::I32, ByteOrder::Little, Scaling::NONE);
    Ok(Volume { shape, voxels, ..volume })
}
