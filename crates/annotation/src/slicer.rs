//! 3D Slicer's `.seg.nrrd`: read by `ct-ingest`, written here. Format: Slicer's documentation, "Segmentation file (.seg.nrrd)".

use crate::names::Named;
use crate::names::chosen;
use crate::segmentation::{ReadSegment, Segmentation};
use crate::{AnnotationError, Code, Ct, Painted};
use ct_ingest::{Grid, Placement, ReadOptions, SegmentLabels, check_same_geometry, read_volume};
use flate2::{Compression, write::GzEncoder};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use whole_file::{Existing, check_place, replace};

/// A header of text may be as long as this: segmentations describe each of hundreds of segments there.
const LONGEST_HEADER: u64 = 1 << 20;

/// Layers that a written file may have: each is a mask of all voxels.
const MOST_LAYERS: usize = 255;

/// Reads the named segments.
pub(crate) fn read(path: &Path, names: &[&str], ct: &Ct<'_>) -> Result<Segmentation, AnnotationError> {
    let all = segments(path)?;
    let mut read = Segmentation { segments: Vec::new(), warnings: Vec::new() };
    for place in chosen(path, names, &all)? {
        let name = all[place].name.clone();
        // One at a time: segments may overlap.
        let labels = SegmentLabels { values: vec![(name.clone(), 1)], needed: vec![name.clone()] };
        let volume = read_volume(path, &ReadOptions { segments: Some(labels), ..ReadOptions::default() })?;
        let placement = if let Some(placement) = Placement::of(volume.grid(), ct.grid, ct.tolerance) {
            placement
        } else {
            // Where the shape is the CT's, this says what differs.
            let sorted = |mut shape: [usize; 3]| {
                shape.sort_unstable();
                shape
            };
            if sorted(volume.shape) == sorted(ct.grid.shape) {
                check_same_geometry(ct.grid, volume.grid(), ct.tolerance)?;
            }
            ct.place(volume.grid(), "it")?
        };
        let mut mask = vec![0; ct.voxels()];
        let [columns, rows, _] = volume.shape;
        for (voxel, _) in volume.voxels.iter().enumerate().filter(|(_, value)| *value != 0.0) {
            mask[placement.place([voxel % columns, voxel / columns % rows, voxel / columns / rows])] = 1;
        }
        read.segments.push(ReadSegment { name, mask });
        read.warnings = volume.warnings;
    }
    Ok(read)
}

/// The segments that the header describes.
fn segments(path: &Path) -> Result<Vec<Named>, AnnotationError> {
    let io = |reason| ct_ingest::IngestError::Io { action: "read", path: path.to_path_buf(), reason };
    let mut reader = BufReader::new(File::open(path).map_err(io)?.take(LONGEST_HEADER));
    let mut names: BTreeMap<usize, [Option<String>; 2]> = BTreeMap::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(io)? > 0 {
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
        line.clear();
        if text.is_empty() {
            break;
        }
        let pair = || {
            let (key, value) = text.split_once(":=")?;
            let (number, field) = key.strip_prefix("Segment")?.split_once('_')?;
            Some((number.parse::<usize>().ok()?, field, value.trim()))
        };
        if let Some((number, field, value)) = pair() {
            let name = names.entry(number).or_default();
            match field {
                "Name" => name[0] = Some(value.to_owned()),
                "ID" => name[1] = Some(value.to_owned()),
                _ => {}
            }
        }
    }
    if names.is_empty() {
        let found = "is an NRRD file without segments".to_owned();
        return Err(AnnotationError::NoSegmentation { path: path.to_path_buf(), found });
    }
    let named = |[name, id]: [Option<String>; 2]| Named { name: name.or(id).unwrap_or_default(), meaning: None };
    Ok(names.into_values().map(named).collect())
}

/// Writes segments as a `.seg.nrrd` on the whole grid of a CT, in the voxel order of its file. Segments that overlap get layers of their
/// own.
///
/// # Errors
/// A mask of another length than the CT's; a name with a line break, or one that two segments have; what [`check_place`] refuses; what
/// the operating system does.
pub fn write_seg_nrrd(
    path: &Path,
    ct: Grid<'_>,
    segments: &[Painted<'_>],
    existing: Existing,
) -> Result<(), AnnotationError> {
    Painted::check(path, segments, ct.shape)?;
    check_place(path, &[ct.path], existing)?;
    let layers = layers(segments);
    let number = layers.iter().max().map_or(1, |most| most + 1);
    if number > MOST_LAYERS {
        let problem =
            format!("its segments overlap so that {number} layers are needed, expected at most {MOST_LAYERS}");
        return Err(AnnotationError::Masks { path: path.to_path_buf(), problem });
    }
    // Labels are counted in each layer from 1.
    let label = |place: usize| layers[..=place].iter().filter(|&&layer| layer == layers[place]).count();
    let wide = (0..segments.len()).any(|place| label(place) > usize::from(u8::MAX));
    let width = if wide { 2 } else { 1 };
    let mut bytes = vec![0; ct.shape.iter().product::<usize>() * number * width];
    for (place, painted) in segments.iter().enumerate() {
        let label = (label(place) as u16).to_le_bytes();
        for (voxel, _) in painted.mask.iter().enumerate().filter(|(_, value)| **value != 0) {
            bytes[(voxel * number + layers[place]) * width..][..width].copy_from_slice(&label[..width]);
        }
    }
    let header = header(ct, number, wide, segments, |place| (label(place), layers[place]));
    replace(path, |file| {
        file.write_all(header.as_bytes())?;
        let mut encoder = GzEncoder::new(file, Compression::default());
        encoder.write_all(&bytes)?;
        encoder.finish().map(drop)
    })
    .map_err(AnnotationError::write(path))
}

/// The layer of each segment: the first in which it overlaps none.
fn layers(segments: &[Painted<'_>]) -> Vec<usize> {
    let mut layers: Vec<usize> = Vec::new();
    for painted in segments {
        let overlaps = |layer: usize| {
            let others = segments.iter().zip(&layers).filter(|(_, of)| **of == layer);
            others.into_iter().any(|(other, _)| other.mask.iter().zip(painted.mask).any(|(a, b)| *a != 0 && *b != 0))
        };
        let free = (0..segments.len()).find(|&layer| !overlaps(layer)).unwrap_or_default();
        layers.push(free);
    }
    layers
}

fn header(
    ct: Grid<'_>,
    layers: usize,
    wide: bool,
    segments: &[Painted<'_>],
    place: impl Fn(usize) -> (usize, usize),
) -> String {
    let affine = &ct.geometry.affine;
    let sign = [-1.0, -1.0, 1.0];
    // Adding zero makes negative zeros positive.
    let vector = |column: usize| {
        let [x, y, z] = [0, 1, 2].map(|row: usize| sign[row] * affine[row][column] + 0.0);
        format!("({x},{y},{z})")
    };
    let [x, y, z] = ct.shape;
    let (dimension, sizes, none, kinds) = if layers == 1 {
        (3, format!("{x} {y} {z}"), "", "domain domain domain")
    } else {
        (4, format!("{layers} {x} {y} {z}"), "none ", "list domain domain domain")
    };
    let (kind, endian) = if wide { ("unsigned short", "endian: little\n") } else { ("unsigned char", "") };
    let directions = [0, 1, 2].map(vector).join(" ");
    let mut text = format!(
        "NRRD0004\n# Complete NRRD file format specification at:\n# http://teem.sourceforge.net/nrrd/format.html\n\
         type: {kind}\ndimension: {dimension}\nspace: left-posterior-superior\nsizes: {sizes}\n\
         space directions: {none}{directions}\nkinds: {kinds}\n{endian}encoding: gzip\nspace origin: {}\n",
        vector(3)
    );
    for (number, painted) in segments.iter().enumerate() {
        let segment = painted.segment;
        let (label, layer) = place(number);
        let [red, green, blue] = segment.colour.map(|part| f64::from(part) / 255.0);
        let extent = extent(painted.mask, ct.shape).map(|end| end.to_string()).join(" ");
        let mut line = |field: &str, value: &str| {
            let _ = writeln!(text, "Segment{number}_{field}:={value}");
        };
        line("Color", &format!("{red:.6} {green:.6} {blue:.6}"));
        line("ColorAutoGenerated", "0");
        line("Extent", &extent);
        line("ID", &format!("Segment_{}", number + 1));
        line("LabelValue", &label.to_string());
        line("Layer", &layer.to_string());
        line("Name", &segment.name);
        line("NameAutoGenerated", "0");
        let code = |Code { value, scheme, meaning }: &Code| format!("{scheme}^{value}^{meaning}");
        let (category, kind) = (code(&segment.category), code(&segment.kind));
        line(
            "Tags",
            &format!(
                "Segmentation.Status:inprogress|TerminologyEntry:Segmentation category and type - 3D Slicer General Anatomy \
                 list~{category}~{kind}~^^~Anatomic codes - DICOM master list~^^~^^|"
            ),
        );
    }
    text += "Segmentation_ContainedRepresentationNames:=Binary labelmap|\nSegmentation_ConversionParameters:=\n\
             Segmentation_MasterRepresentation:=Binary labelmap\nSegmentation_ReferenceImageExtentOffset:=0 0 0\n\n";
    text
}

/// First and last voxel along each axis; 0 -1 for a segment without voxels, as Slicer has it.
fn extent(mask: &[u8], [columns, rows, _]: [usize; 3]) -> [i64; 6] {
    let mut ends = [0, -1, 0, -1, 0, -1];
    for (voxel, _) in mask.iter().enumerate().filter(|(_, value)| **value != 0) {
        let at = [voxel % columns, voxel / columns % rows, voxel / columns / rows];
        let none = ends[1] < ends[0];
        for (axis, index) in at.into_iter().map(|index| index as i64).enumerate() {
            let [first, last] = [2 * axis, 2 * axis + 1];
            ends[first] = if none { index } else { ends[first].min(index) };
            ends[last] = if none { index } else { ends[last].max(index) };
        }
    }
    ends
}
