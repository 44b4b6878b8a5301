//! What a store promises to those who write it and to those who read it.

use polars::prelude::{DataType, ParquetReader, SerReader};
use serde_json::json;
use slice_store::{
    CaseData, FORMAT_VERSION, KnownCase, SliceId, SliceLabel, SliceRecord, SliceStore, StoreError, StoreInfo,
    StoreSettings, StoreWriter,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const SIZE: usize = 8;

fn info() -> StoreInfo {
    StoreInfo {
        format_version: FORMAT_VERSION,
        dataset: "test".to_owned(),
        target: "liver".to_owned(),
        settings: StoreSettings { slice_size: SIZE, ..StoreSettings::default() },
        tool_version: "0.0.0".to_owned(),
        manifest: json!({ "name": "test", "description": "prose", "labels": { "liver": 1 } }),
    }
}

/// Slices whose pixels count up from `start`; slice 1 has two target pixels.
fn write_case(writer: &StoreWriter, case: &str, start: i16, slices: usize) -> Result<(), StoreError> {
    let images: Vec<i16> = (0..slices * SIZE * SIZE).map(|i| start + i as i16).collect();
    let mut masks = vec![0; images.len()];
    masks[SIZE * SIZE + 3] = 1;
    masks[SIZE * SIZE + 9] = 1;
    let records = records(case, slices);
    writer.write_case(case_data(case, &images, &masks, records))
}

fn case_data<'a>(case: &'a str, images: &'a [i16], masks: &'a [u8], records: Vec<SliceRecord>) -> CaseData<'a> {
    CaseData { case, patient: case, images, masks, records, manifest: json!({ "labels": 1 }), provenance: json!(1) }
}

fn records(case: &str, slices: usize) -> Vec<SliceRecord> {
    let record = |index: u32| SliceRecord {
        case: case.to_owned(),
        patient: case.to_owned(),
        index,
        position_mm: 0.1 + index as f32,
        row_spacing_mm: 1.5,
        column_spacing_mm: 1.4,
        slice_spacing_mm: 1.0,
        spacing_valid: true,
        label: if index == 1 { SliceLabel::MaskPresent } else { SliceLabel::MaskAbsent },
        source_sha256: format!("sum of {case}"),
    };
    (0..slices as u32).map(record).collect()
}

fn finished(path: &Path) -> SliceStore {
    let writer = StoreWriter::create(path, info()).unwrap();
    for (case, start) in [("v10", 100), ("v9", 50), ("v2", 0)] {
        write_case(&writer, case, start, 3).unwrap();
    }
    assert_eq!(writer.finish(["v10", "v9", "v2"]).unwrap().len(), 9);
    drop(writer);
    SliceStore::open(path).unwrap()
}

fn open_error(path: &Path) -> String {
    SliceStore::open(path).err().expect("the store should be refused").to_string()
}

#[test]
fn what_is_absent_in_the_index_is_null_and_no_number_is_nan() {
    let directory = tempfile::tempdir().unwrap();
    let writer = StoreWriter::create(directory.path(), info()).unwrap();
    write_case(&writer, "a", 0, 2).unwrap();
    let mut unmasked = records("b", 2);
    (unmasked[0].label, unmasked[1].label) = (SliceLabel::ListAbsent, SliceLabel::Unknown);
    unmasked[0].spacing_valid = false;
    writer.write_case(case_data("b", &[0; 2 * SIZE * SIZE], &[], unmasked)).unwrap();
    writer.finish(["a", "b"]).unwrap();
    let frame = ParquetReader::new(fs::File::open(directory.path().join("index.parquet")).unwrap()).finish().unwrap();
    let mut real = 0;
    for column in frame.columns() {
        match column.dtype() {
            DataType::Float32 => {
                real += 1;
                assert!(column.f32().unwrap().iter().all(|v| v.is_some_and(f32::is_finite)), "{column:?}");
            }
            other => assert!(!other.is_float(), "{column:?}"),
        }
    }
    assert_eq!(real, 4);
    let column = |name: &str| frame.column(name).unwrap();
    assert_eq!(column("target_pixels").u32().unwrap().iter().collect::<Vec<_>>(), [Some(0), Some(2), None, None]);
    let target = [Some(false), Some(true), Some(false), None];
    assert_eq!(column("has_target").bool().unwrap().iter().collect::<Vec<_>>(), target);
    assert_eq!(column("masks_sha256").null_count(), 2);
}

#[test]
fn what_was_written_is_read_in_natural_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = finished(directory.path());
    let order: Vec<String> = store.records().iter().map(|r| r.id().to_string()).collect();
    assert_eq!(order[..4], ["v2/0000", "v2/0001", "v2/0002", "v9/0000"]);
    assert_eq!(order[6], "v10/0000");
    assert_eq!(store.records()[6..], records("v10", 3));
    for (row, record) in store.records().iter().enumerate() {
        assert_eq!(store.position(&record.id()), Some(row));
    }
    assert_eq!(store.position(&SliceId { case: "v2".to_owned(), index: 3 }), None);
    assert_eq!(store.position(&SliceId { case: "v3".to_owned(), index: 0 }), None);
    // v9's slice 1 begins at pixel 64, counted from 50.
    assert_eq!(store.image(4)[..2], [114, 115]);
    assert_eq!(store.image(4).len(), SIZE * SIZE);
    let masks = store.for_evaluation();
    assert_eq!(masks.mask(4).unwrap().iter().positions_of(1), [3, 9]);
    assert!(masks.mask(3).unwrap().iter().all(|&m| m == 0));
    assert_eq!((masks.target_pixels(4), masks.target_pixels(3)), (Some(2), Some(0)));
    assert_eq!(store.info(), &info());
}

trait Positions {
    fn positions_of(self, value: u8) -> Vec<usize>;
}

impl<'a, I: Iterator<Item = &'a u8>> Positions for I {
    fn positions_of(self, value: u8) -> Vec<usize> {
        self.enumerate().filter(|&(_, &v)| v == value).map(|(i, _)| i).collect()
    }
}

#[test]
fn the_checksum_depends_on_content_and_not_on_place_or_order() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = finished(a.path());
    let writer = StoreWriter::create(b.path(), StoreInfo { tool_version: "9".to_owned(), ..info() }).unwrap();
    for (case, start) in [("v2", 0), ("v10", 100), ("v9", 50)] {
        write_case(&writer, case, start, 3).unwrap();
    }
    let cases = ["v10", "v9", "v2"];
    writer.finish(cases).unwrap();
    assert_eq!(first.checksum(), SliceStore::open(b.path()).unwrap().checksum());
    assert_eq!(first.checksum().len(), 64);
    write_case(&writer, "v2", 0, 4).unwrap();
    writer.finish(cases).unwrap();
    assert_ne!(first.checksum(), SliceStore::open(b.path()).unwrap().checksum());
}

#[test]
fn a_store_without_index_is_called_unfinished() {
    let directory = tempfile::tempdir().unwrap();
    assert!(open_error(directory.path()).contains("is not a slice store"));
    let writer = StoreWriter::create(directory.path(), info()).unwrap();
    write_case(&writer, "v1", 0, 3).unwrap();
    assert!(open_error(directory.path()).contains("is unfinished"));
    writer.finish(["v1"]).unwrap();
    assert!(SliceStore::open(directory.path()).is_ok());
    // A case that is written anew takes the index away until the store is finished again.
    write_case(&writer, "v1", 1, 3).unwrap();
    assert!(open_error(directory.path()).contains("is unfinished"));
}

#[test]
fn a_whole_case_is_known_by_its_source_and_half_a_case_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let writer = StoreWriter::create(directory.path(), info()).unwrap();
    assert_eq!(writer.known("v1"), None);
    write_case(&writer, "v1", 0, 3).unwrap();
    let (source_sha256, manifest, provenance) = ("sum of v1".to_owned(), json!({ "labels": 1 }), json!(1));
    assert_eq!(writer.known("v1"), Some(KnownCase { source_sha256, manifest, provenance, has_imports: false }));
    fs::remove_file(directory.path().join("masks/v1.npy")).unwrap();
    assert_eq!(writer.known("v1"), None);
}

#[test]
fn other_settings_are_refused_and_the_key_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let refusal = |change: fn(&mut StoreInfo)| {
        let mut other = info();
        change(&mut other);
        StoreWriter::create(directory.path(), other).err().map(|error| error.to_string())
    };
    // Without a case there is nothing that was made otherwise.
    assert_eq!(refusal(|info| info.settings.slice_size = 16), None);
    assert_eq!(refusal(|_| {}), None);
    write_case(&StoreWriter::create(directory.path(), info()).unwrap(), "v1", 0, 3).unwrap();
    let message = refusal(|info| info.settings.slice_size = 16).unwrap();
    assert!(
        message.contains("`settings.slice_size` = 8, now it is 16; all 1 cases would be prepared again: --redo"),
        "{message}"
    );
    let message = refusal(|info| info.manifest["labels"]["liver"] = json!(2)).unwrap();
    assert!(message.contains("`manifest.labels.liver` = 1, now it is 2"), "{message}");
    let message = refusal(|info| info.manifest["labels"]["tumour"] = json!(2)).unwrap();
    assert!(message.contains("`manifest.labels.tumour` = not set, now it is 2"), "{message}");
    assert_eq!(refusal(|info| info.manifest["description"] = json!("other prose")), None);
    assert_eq!(refusal(|info| info.tool_version = "1.2.3".to_owned()), None);
    // What it says of single cases is compared case by case.
    assert_eq!(refusal(|info| info.manifest["orientation"] = json!({ "v2": "RAS" })), None);
}

#[test]
fn a_second_writer_is_refused_while_the_first_lives() {
    let directory = tempfile::tempdir().unwrap();
    let first = StoreWriter::create(directory.path(), info()).unwrap();
    assert!(matches!(StoreWriter::create(directory.path(), info()), Err(StoreError::Locked { .. })));
    drop(first);
    assert!(StoreWriter::create(directory.path(), info()).is_ok());
}

#[test]
fn contradictory_case_data_are_refused_and_leave_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let writer = StoreWriter::create(directory.path(), info()).unwrap();
    let images = vec![0_i16; 2 * SIZE * SIZE];
    let mut masks = vec![0_u8; images.len()];
    masks[64] = 1;
    masks[65] = 1;
    let refusal = |case: &str, images: &[i16], masks: &[u8], records: Vec<SliceRecord>| {
        writer.write_case(case_data(case, images, masks, records)).unwrap_err().to_string()
    };
    assert!(refusal("a/b", &images, &masks, records("a/b", 2)).contains("can't name a case"));
    assert!(refusal("", &images, &masks, records("", 2)).contains("can't name a case"));
    assert!(refusal("v", &images, &masks, records("w", 2)).contains("record 0 is of (\"w\""));
    assert!(refusal("v", &images, &masks, records("v", 3)).contains("expected 3 slices of 64"));
    assert!(refusal("v", &images, &[], records("v", 2)).contains("0 mask pixels, expected 2 masks of 64"));
    let message = refusal("v", &images, &[0; 128], records("v", 2));
    assert!(message.contains("record 1 is MaskPresent, its mask MaskAbsent"), "{message}");
    assert!(refusal("v", &images, &[2; 128], records("v", 2)).contains("a mask pixel of 2"));
    assert!(refusal("v", &[5000; 128], &masks, records("v", 2)).contains("a pixel of 5000 HU"));
    let mut endless = records("v", 2);
    endless[1].position_mm = f32::NAN;
    assert!(refusal("v", &images, &masks, endless).contains("NaN"));
    assert_eq!(fs::read_dir(directory.path().join("images")).unwrap().count(), 0);
}

#[test]
fn damage_is_found_when_the_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    drop(finished(path));
    let image = path.join("images/v9.npy");
    let whole = fs::read(&image).unwrap();
    fs::write(&image, &whole[..whole.len() - 1]).unwrap();
    assert!(open_error(path).contains("images/v9.npy' is damaged: it has 511 bytes, expected 512"));
    fs::write(&image, []).unwrap();
    assert!(open_error(path).contains("it is empty"));
    fs::copy(path.join("masks/v9.npy"), &image).unwrap();
    assert!(open_error(path).contains("it holds '|u1' in C order, expected '<i2'"));
    fs::remove_file(&image).unwrap();
    assert!(open_error(path).contains("cannot read"));
    fs::write(&image, &whole).unwrap();
    assert!(SliceStore::open(path).is_ok());

    let index = path.join("index.parquet");
    let rows = fs::read(&index).unwrap();
    fs::write(&index, &rows[..rows.len() / 2]).unwrap();
    assert!(open_error(path).contains("index.parquet' is damaged"));
    fs::write(&index, &rows).unwrap();

    let info_path = path.join("store.json");
    let text = fs::read_to_string(&info_path).unwrap();
    fs::write(&info_path, text.replace("\"format_version\": 2", "\"format_version\": 7")).unwrap();
    assert!(open_error(path).contains("has format version 7, expected 1 or 2"));
    fs::write(&info_path, text.replace("\"target\"", "\"organ\"")).unwrap();
    assert!(open_error(path).contains("unknown field `organ`"));
}

#[test]
fn a_repeated_finish_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    drop(finished(directory.path()));
    let index = directory.path().join("index.parquet");
    let before = fs::metadata(&index).unwrap().modified().unwrap();
    StoreWriter::create(directory.path(), info()).unwrap().finish(["v2", "v9", "v10"]).unwrap();
    assert_eq!(fs::metadata(&index).unwrap().modified().unwrap(), before);
}

#[test]
fn every_changed_bit_of_the_index_is_found_before_it_is_parsed() {
    let directory = tempfile::tempdir().unwrap();
    drop(finished(directory.path()));
    let index = directory.path().join("index.parquet");
    let whole = fs::read(&index).unwrap();
    for at in (0..whole.len()).step_by(11) {
        let mut rows = whole.clone();
        rows[at] ^= 1 << (at % 8);
        fs::write(&index, &rows).unwrap();
        assert!(open_error(directory.path()).contains("index.parquet' is damaged: its SHA-256 is"));
    }
    fs::write(&index, &whole).unwrap();
    assert!(SliceStore::open(directory.path()).is_ok());
    fs::remove_file(directory.path().join("index.sha256")).unwrap();
    assert!(open_error(directory.path()).contains("is unfinished: it has no index.sha256; run"));
    StoreWriter::create(directory.path(), info()).unwrap().finish(["v2", "v9", "v10"]).unwrap();
    assert!(SliceStore::open(directory.path()).is_ok());
}

#[test]
fn the_checksum_covers_pixels_masks_and_what_the_manifest_says_of_them() {
    let checksum = |change: fn(&mut Vec<i16>, &mut Vec<u8>, &mut serde_json::Value)| {
        let directory = tempfile::tempdir().unwrap();
        let writer = StoreWriter::create(directory.path(), info()).unwrap();
        let mut images = vec![0; 2 * SIZE * SIZE];
        let mut masks = vec![0; images.len()];
        masks[SIZE * SIZE..][..2].fill(1);
        let mut manifest = json!({ "intensity": { "kind": "grey8", "level": 40, "width": 400 } });
        change(&mut images, &mut masks, &mut manifest);
        let data = CaseData { manifest, ..case_data("v", &images, &masks, records("v", 2)) };
        writer.write_case(data).unwrap();
        writer.finish(["v"]).unwrap();
        SliceStore::open(directory.path()).unwrap().checksum().to_owned()
    };
    let checksums = BTreeSet::from([
        checksum(|_, _, _| ()),
        checksum(|images, _, _| images[7] = 1),
        // As many target pixels, elsewhere.
        checksum(|_, masks, _| masks[SIZE * SIZE..].rotate_left(1)),
        checksum(|_, _, manifest| manifest["intensity"] = json!({ "kind": "grey8", "level": 50, "width": 350 })),
        checksum(|_, _, manifest| manifest["orientation"] = json!("RAS")),
    ]);
    assert_eq!(checksums.len(), 5);
    assert!(checksums.contains(&checksum(|_, _, _| ())));
}

#[test]
fn a_changed_byte_of_an_array_is_found_by_its_digest() {
    let directory = tempfile::tempdir().unwrap();
    let store = finished(directory.path());
    let damaged = |store: &SliceStore| -> Vec<String> {
        store.arrays().iter().filter_map(|array| array.verify().err()).map(|error| error.to_string()).collect()
    };
    assert_eq!((store.arrays().len(), damaged(&store).len()), (6, 0));
    for name in ["images/v9.npy", "masks/v2.npy"] {
        let path = directory.path().join(name);
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        changed[whole.len() - 3] ^= 1;
        fs::write(&path, changed).unwrap();
        // Opening reads no pixels.
        let found = damaged(&SliceStore::open(directory.path()).unwrap());
        assert!(
            found.len() == 1 && found[0].contains(&format!("{name}' has changed since it was written")),
            "{found:?}"
        );
        fs::write(&path, whole).unwrap();
    }
    fs::remove_file(directory.path().join("images/v9.npy")).unwrap();
    assert!(damaged(&store)[0].contains("cannot read"));
}

#[test]
fn digests_are_those_of_the_files() {
    use sha2::{Digest, Sha256};
    let directory = tempfile::tempdir().unwrap();
    for array in finished(directory.path()).arrays() {
        let digest = Sha256::digest(fs::read(&array.path).unwrap());
        let digest = digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(array.sha256, digest);
    }
}

/// One case of five slices, one of each label; those with a mask are slices 1 and 3.
fn partly_labelled(path: &Path) -> SliceStore {
    use SliceLabel::{ListAbsent, ListPresent, MaskAbsent, MaskPresent, Unknown};
    let writer = StoreWriter::create(path, info()).unwrap();
    let mut of_case = records("v", 5);
    for (record, label) in of_case.iter_mut().zip([ListPresent, MaskPresent, Unknown, MaskAbsent, ListAbsent]) {
        record.label = label;
    }
    let images: Vec<i16> = (0..5 * SIZE * SIZE).map(|i| i as i16).collect();
    let mut masks = vec![0; 2 * SIZE * SIZE];
    masks[5] = 1;
    writer.write_case(case_data("v", &images, &masks, of_case)).unwrap();
    // And a case that nobody has looked at.
    let mut unlabelled = records("w", 1);
    unlabelled[0].label = Unknown;
    writer.write_case(case_data("w", &images[..SIZE * SIZE], &[], unlabelled)).unwrap();
    writer.finish(["v", "w"]).unwrap();
    SliceStore::open(path).unwrap()
}

#[test]
fn a_case_keeps_only_the_masks_that_it_has() {
    use slice_store::{Presence, PresenceSource};
    let directory = tempfile::tempdir().unwrap();
    let store = partly_labelled(directory.path());
    let of: Vec<(Presence, PresenceSource, bool, bool)> =
        store.records().iter().map(|r| (r.presence(), r.label.source(), r.has_mask(), r.has_target())).collect();
    assert_eq!(
        of,
        [
            (Presence::Present, PresenceSource::List, false, true),
            (Presence::Present, PresenceSource::Mask, true, true),
            (Presence::Unknown, PresenceSource::None, false, false),
            (Presence::Absent, PresenceSource::Mask, true, false),
            (Presence::Absent, PresenceSource::List, false, false),
            (Presence::Unknown, PresenceSource::None, false, false),
        ]
    );
    let masks = store.for_evaluation();
    let with_mask: Vec<usize> = (0..6).filter(|&row| masks.mask(row).is_some()).collect();
    assert_eq!(with_mask, [1, 3]);
    assert_eq!(masks.mask(1).unwrap().iter().positions_of(1), [5]);
    assert!(masks.mask(3).unwrap().iter().all(|&m| m == 0));
    assert_eq!([0, 1, 2, 3].map(|row| masks.target_pixels(row)), [None, Some(1), None, Some(0)]);
    // The files are as small as that: a header of 128 bytes and two masks; none for the other case.
    assert_eq!(fs::metadata(directory.path().join("masks/v.npy")).unwrap().len(), 128 + 2 * 64);
    assert!(!directory.path().join("masks/w.npy").exists());
    let case: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.path().join("cases/v.json")).unwrap()).unwrap();
    assert_eq!(case["mask_slices"], json!([1, 3]));
    assert_eq!(store.arrays().len(), 3);
}

#[test]
fn masks_that_a_case_no_longer_has_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let writer = StoreWriter::create(directory.path(), info()).unwrap();
    write_case(&writer, "v", 0, 2).unwrap();
    let mut without = records("v", 2);
    for record in &mut without {
        record.label = SliceLabel::Unknown;
    }
    writer.write_case(case_data("v", &[0; 2 * SIZE * SIZE], &[], without)).unwrap();
    assert!(!directory.path().join("masks/v.npy").exists());
    assert!(writer.known("v").is_some());
}

#[test]
fn training_has_the_masks_that_were_paid_for_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = finished(directory.path());
    let training = store.for_training([1, 4]).unwrap();
    // Of slices without the target an image-level label says that nothing is drawn in them.
    let given: Vec<usize> = (0..9).filter(|&row| training.mask(row).is_some_and(|mask| mask.contains(&1))).collect();
    assert_eq!(given, [1, 4]);
    let empty = (0..9).filter(|&row| training.mask(row).is_some()).count() - 2;
    assert_eq!(empty, training.records().iter().filter(|record| !record.has_target()).count());
    assert!(training.mask(7).is_none() && training.records()[7].has_target(), "drawn, and not paid for");
    assert_eq!(training.mask(4), store.for_evaluation().mask(4));
    // Images and image-level labels are there for all.
    assert_eq!(training.image(7), store.image(7));
    assert_eq!(training.records().iter().filter(|record| record.has_target()).count(), 3);
}

#[test]
fn a_slice_without_a_mask_cant_be_paid_for() {
    let directory = tempfile::tempdir().unwrap();
    let message = partly_labelled(directory.path()).for_training([1, 2]).err().unwrap().to_string();
    assert!(message.contains("has no mask of slice 'v/0002'"), "{message}");
}

#[test]
fn what_training_reads_is_counted() {
    use slice_store::Crop;
    let directory = tempfile::tempdir().unwrap();
    let store = finished(directory.path());
    let training = store.for_training([1, 4]).unwrap();
    assert!(training.annotations_read().masks.is_empty());
    training.mask(4);
    training.mask(4);
    training.mask(7);
    // Slice 7 has target pixels at row 0, column 3, and row 1, column 1: one of the nine here, both of the 16.
    let crop = |left, side| Crop { top: 0, left, side };
    assert_eq!(training.crop_shows_target(7, crop(3, 3), 0.1), Some(true));
    assert_eq!(training.crop_shows_target(7, crop(3, 3), 0.12), Some(false));
    assert_eq!(training.crop_shows_target(7, crop(4, 3), 0.0), Some(false));
    assert_eq!(training.crop_shows_target(7, crop(3, 3), 0.1), Some(true));
    // Its mask is paid for.
    assert_eq!(training.crop_shows_target(1, crop(0, 8), 0.0), Some(true));
    let read = training.annotations_read();
    let names = |ids: &[SliceId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&read.masks), ["v2/0001", "v9/0001"]);
    assert_eq!(read.crops, [("v10/0001".parse().unwrap(), 2)]);
}

#[test]
fn cases_that_are_not_named_at_the_end_leave_the_index_and_come_back() {
    let directory = tempfile::tempdir().unwrap();
    drop(finished(directory.path()));
    let writer = StoreWriter::create(directory.path(), info()).unwrap();
    assert_eq!(writer.cases_before().iter().map(String::as_str).collect::<Vec<_>>(), ["v10", "v2", "v9"]);
    assert_eq!(writer.finish(["v2", "v10"]).unwrap().len(), 6);
    drop(writer);
    let store = SliceStore::open(directory.path()).unwrap();
    assert!(store.records().len() == 6 && store.records().iter().all(|record| record.case != "v9"));
    assert_eq!(store.left_out().unwrap(), ["v9"]);
    let writer = StoreWriter::create(directory.path(), info()).unwrap();
    assert_eq!(writer.cases_before().len(), 2);
    assert!(writer.known("v9").is_some(), "its files are still there");
    assert_eq!(writer.finish(["v2", "v9", "v10"]).unwrap().len(), 9);
    // Without any case there is no index.
    assert!(writer.finish([]).unwrap().is_empty());
    assert!(open_error(directory.path()).contains("is unfinished"));
}

#[test]
fn what_the_manifest_says_of_single_cases_is_kept_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    drop(finished(directory.path()));
    let mut other = info();
    other.manifest["series"] = json!({ "v2": "1.2.3" });
    StoreWriter::create(directory.path(), other.clone()).unwrap().finish(["v2", "v9", "v10"]).unwrap();
    assert_eq!(*SliceStore::open(directory.path()).unwrap().info(), other);
}

#[test]
fn a_directory_that_is_neither_empty_nor_a_store_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for name in [".editor.tmp", "images/.picture.npy.tmp", "images/mine.npy", "cases/mine.json", "index.parquet"] {
        fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
        fs::write(path.join(name), "mine").unwrap();
    }
    for info_of_another in [None, Some(r#"{ "name": "a shop" }"#), Some("no JSON")] {
        if let Some(text) = info_of_another {
            fs::write(path.join("store.json"), text).unwrap();
        }
        for make in [StoreWriter::create, StoreWriter::replace] {
            let message = make(path, info()).err().unwrap().to_string();
            assert!(message.contains("is neither empty nor a slice store"), "{message}");
        }
    }
    for name in [".editor.tmp", "images/.picture.npy.tmp", "images/mine.npy", "cases/mine.json", "index.parquet"] {
        assert_eq!(fs::read(path.join(name)).unwrap(), b"mine");
    }
    assert!(!path.join(".lock").exists());
    // What a process leaves that was killed before it wrote anything is no obstacle, and is swept.
    let killed = tempfile::tempdir().unwrap();
    fs::write(killed.path().join(".lock"), "").unwrap();
    fs::write(killed.path().join(".sam-mix-part-0-store.json"), "{").unwrap();
    let writer = StoreWriter::create(killed.path(), info()).unwrap();
    write_case(&writer, "v", 0, 2).unwrap();
    assert!(!killed.path().join(".sam-mix-part-0-store.json").exists());
    // Temporary files of others stay, in a store too.
    drop(writer);
    fs::write(killed.path().join(".editor.tmp"), "mine").unwrap();
    fs::write(killed.path().join("images/.sam-mix-part-0-v.npy"), "half").unwrap();
    StoreWriter::create(killed.path(), info()).unwrap();
    assert!(killed.path().join(".editor.tmp").exists() && !killed.path().join("images/.sam-mix-part-0-v.npy").exists());
}

#[test]
fn an_imported_mask_counts_and_what_it_took_the_place_of_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let writer = StoreWriter::create(directory.path(), info()).unwrap();
    write_case(&writer, "a", 0, 3).unwrap();
    let mut unmasked = records("b", 3);
    for (record, label) in unmasked.iter_mut().zip([SliceLabel::ListAbsent, SliceLabel::Unknown, SliceLabel::Unknown]) {
        record.label = label;
    }
    writer.write_case(case_data("b", &[0; 3 * SIZE * SIZE], &[], unmasked)).unwrap();
    writer.finish(["a", "b"]).unwrap();
    drop(writer);
    let known = |case: &str, index| SliceId { case: case.to_owned(), index };
    let look = || {
        let store = SliceStore::open(directory.path()).unwrap();
        let labels: Vec<SliceLabel> = store.records().iter().map(|record| record.label).collect();
        let (all, row) = (store.for_evaluation(), |id| store.position(&id).unwrap());
        let pixels = [known("a", 1), known("a", 2), known("b", 2)].map(|id| all.target_pixels(row(id)));
        for array in store.arrays() {
            array.verify().unwrap();
        }
        (store.checksum().to_owned(), labels, pixels, store.image(row(known("b", 2))).to_vec())
    };
    let before = look();
    assert_eq!(before.2, [Some(2), Some(0), None]);

    let open = || StoreWriter::open(directory.path()).unwrap();
    let mask = |count: usize| [vec![1; count], vec![0; SIZE * SIZE - count]].concat();
    let import = |writer: &StoreWriter, case: &str, masks: &[(u32, usize)]| {
        let masks = masks.iter().map(|(slice, count)| (*slice, mask(*count))).collect();
        writer.import(case, &masks, json!({ "by": "N" })).unwrap()
    };
    let first = |writer: &StoreWriter| [import(writer, "a", &[(1, 0), (2, 5)]), import(writer, "b", &[(0, 0), (2, 9)])];
    // Ended before all files were whole: as if nothing had been.
    let writer = open();
    let [of_a, of_b] = first(&writer).map(|relabelled| relabelled.import);
    assert_eq!((of_a.number, of_b.number), (1, 1));
    assert_eq!(of_b.before, [(0, SliceLabel::ListAbsent), (2, SliceLabel::Unknown)].into());
    assert_eq!(look(), before, "nothing is in its place yet");
    drop(writer);
    let writer = open();
    assert!(
        !directory.path().join("cases/a.json.next").exists() && !directory.path().join("masks/a.npy.next").exists()
    );
    assert_eq!(look(), before);
    // Ended among the renames: finished by whoever comes next.
    first(&writer);
    let file = |name: &str| directory.path().join(name);
    fs::write(file("commit.json"), r#"{ "cases": ["a", "b"] }"#).unwrap();
    fs::remove_file(file("index.parquet")).unwrap();
    fs::rename(file("masks/a.npy.next"), file("masks/a.npy")).unwrap();
    drop(writer);
    let writer = open();
    assert_eq!((look().2, file("commit.json").exists()), ([Some(0), Some(5), Some(9)], false));

    let commit = |relabelled| writer.commit(vec![relabelled]).unwrap();
    let second = import(&writer, "a", &[(1, 7)]);
    assert_eq!(second.import.number, 2);
    commit(second);
    let after = look();
    let [absent, present] = [SliceLabel::MaskAbsent, SliceLabel::MaskPresent];
    assert_eq!(after.1, [absent, present, present, absent, SliceLabel::Unknown, present]);
    assert_eq!((after.2, &after.3), ([Some(7), Some(5), Some(9)], &before.3));
    assert_ne!(after.0, before.0);

    // One after the other, the last first.
    let undo = |case: &str, number| {
        let undone = writer.undo_import(case).unwrap().unwrap();
        assert_eq!(undone.import.number, number);
        commit(undone);
    };
    undo("a", 2);
    assert_eq!(look().2, [Some(0), Some(5), Some(9)]);
    undo("a", 1);
    undo("b", 1);
    assert!(writer.undo_import("b").unwrap().is_none());
    assert_eq!(look(), before);
    assert!(!directory.path().join("masks/b.npy").exists());
}

#[test]
fn imports_that_fit_no_slice_change_nothing_and_preparing_anew_loses_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let before = finished(path).checksum().to_owned();
    assert!(StoreWriter::open(&path.join("none")).err().unwrap().to_string().contains("is not a slice store"));
    let writer = StoreWriter::open(path).unwrap();
    let import = |case: &str, slice, mask: Vec<u8>| writer.import(case, &[(slice, mask)].into(), json!(0));
    let refused = |case: &str, slice, mask: Vec<u8>| import(case, slice, mask).err().unwrap().to_string();
    assert!(refused("v2", 3, vec![0; SIZE * SIZE]).contains("a mask of slice 3, but it has 3 slices"));
    assert!(refused("v2", 0, vec![0; 3]).contains("its mask of slice 0 is not 64 pixels of 0, 1 or 255"));
    assert!(refused("v2", 0, vec![2; SIZE * SIZE]).contains("its mask of slice 0 is not 64 pixels of 0, 1 or 255"));
    // No target, and a part that nobody knows.
    let in_part = [vec![255; SIZE], vec![0; SIZE * SIZE - SIZE]].concat();
    assert!(refused("v2", 0, in_part).contains("it says nothing"));
    assert!(refused("v3", 0, vec![0; SIZE * SIZE]).contains("v3.json"));
    assert_eq!(SliceStore::open(path).unwrap().checksum(), before);
    writer.commit(vec![import("v2", 0, vec![1; SIZE * SIZE]).unwrap()]).unwrap();
    let problem = write_case(&writer, "v2", 0, 3).unwrap_err().to_string();
    assert!(
        problem.contains("cannot store case 'v2': masks or answers about its crops were imported into it"),
        "{problem}"
    );
    assert_eq!(SliceStore::open(path).unwrap().records()[0].label, SliceLabel::MaskPresent);
}
