//! What a store promises to those who write it and to those who read it.

use serde_json::json;
use slice_store::{
    CaseData, FORMAT_VERSION, SliceId, SliceRecord, SliceStore, StoreError, StoreInfo, StoreSettings, StoreWriter,
};
use std::fs;
use std::path::Path;

const SIZE: usize = 8;

fn info() -> StoreInfo {
    StoreInfo {
        format_version: FORMAT_VERSION,
        dataset: "test".to_owned(),
        target: "liver".to_owned(),
        has_masks: true,
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
    writer.write_case(CaseData { case, patient: case, images: &images, masks: &masks, records, provenance: json!(1) })
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
        target_pixels: if index == 1 { 2 } else { 0 },
        source_sha256: format!("sum of {case}"),
    };
    (0..slices as u32).map(record).collect()
}

fn finished(path: &Path) -> SliceStore {
    let writer = StoreWriter::create(path, info()).unwrap();
    for (case, start) in [("v10", 100), ("v9", 50), ("v2", 0)] {
        write_case(&writer, case, start, 3).unwrap();
    }
    assert_eq!(writer.finish().unwrap().len(), 9);
    drop(writer);
    SliceStore::open(path).unwrap()
}

fn open_error(path: &Path) -> String {
    SliceStore::open(path).err().expect("the store should be refused").to_string()
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
    assert_eq!(store.mask(4).iter().positions_of(1), [3, 9]);
    assert!(store.mask(3).iter().all(|&m| m == 0));
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
    writer.finish().unwrap();
    assert_eq!(first.checksum(), SliceStore::open(b.path()).unwrap().checksum());
    assert_eq!(first.checksum().len(), 64);
    write_case(&writer, "v2", 0, 4).unwrap();
    writer.finish().unwrap();
    assert_ne!(first.checksum(), SliceStore::open(b.path()).unwrap().checksum());
}

#[test]
fn a_store_without_index_is_called_unfinished() {
    let directory = tempfile::tempdir().unwrap();
    assert!(open_error(directory.path()).contains("is not a slice store"));
    let writer = StoreWriter::create(directory.path(), info()).unwrap();
    write_case(&writer, "v1", 0, 3).unwrap();
    assert!(open_error(directory.path()).contains("is unfinished"));
    writer.finish().unwrap();
    assert!(SliceStore::open(directory.path()).is_ok());
    // A case that is written anew takes the index away until the store is finished again.
    write_case(&writer, "v1", 1, 3).unwrap();
    assert!(open_error(directory.path()).contains("is unfinished"));
}

#[test]
fn a_whole_case_is_known_by_its_source_and_half_a_case_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let writer = StoreWriter::create(directory.path(), info()).unwrap();
    assert!(!writer.has_case("v1", "sum of v1"));
    write_case(&writer, "v1", 0, 3).unwrap();
    assert!(writer.has_case("v1", "sum of v1"));
    assert!(!writer.has_case("v1", "another sum"));
    assert_eq!(writer.provenance("v1"), Some(("sum of v1".to_owned(), json!(1))));
    fs::remove_file(directory.path().join("masks/v1.npy")).unwrap();
    assert!(!writer.has_case("v1", "sum of v1"));
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
        let data = CaseData { case, patient: case, images, masks, records, provenance: json!(null) };
        writer.write_case(data).unwrap_err().to_string()
    };
    assert!(refusal("a/b", &images, &masks, records("a/b", 2)).contains("can't name a case"));
    assert!(refusal("", &images, &masks, records("", 2)).contains("can't name a case"));
    assert!(refusal("v", &images, &masks, records("w", 2)).contains("record 0 is of (\"w\""));
    assert!(refusal("v", &images, &masks, records("v", 3)).contains("expected 3 slices of 64"));
    assert!(refusal("v", &images, &[], records("v", 2)).contains("0 mask pixels, expected 128"));
    assert!(refusal("v", &images, &[0; 128], records("v", 2)).contains("record 1 tells 2 target pixels"));
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
    fs::write(&info_path, text.replace("\"format_version\": 1", "\"format_version\": 7")).unwrap();
    assert!(open_error(path).contains("has format version 7, expected 1"));
    fs::write(&info_path, text.replace("\"target\"", "\"organ\"")).unwrap();
    assert!(open_error(path).contains("unknown field `organ`"));
}

#[test]
fn a_repeated_finish_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    drop(finished(directory.path()));
    let index = directory.path().join("index.parquet");
    let before = fs::metadata(&index).unwrap().modified().unwrap();
    StoreWriter::create(directory.path(), info()).unwrap().finish().unwrap();
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
    StoreWriter::create(directory.path(), info()).unwrap().finish().unwrap();
    assert!(SliceStore::open(directory.path()).is_ok());
}
