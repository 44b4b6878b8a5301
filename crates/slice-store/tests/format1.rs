//! Stores of format 1 are read: [how the fixture was made](fixtures/README.md).

use slice_store::{SliceStore, StoreError, StoreWriter};
use std::fs;
use std::path::{Path, PathBuf};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format1")
}

/// A copy that a test may change.
fn copy() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for folder in ["", "images", "masks", "cases"] {
        fs::create_dir_all(directory.path().join(folder)).unwrap();
        for entry in fs::read_dir(fixture().join(folder)).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                fs::copy(entry.path(), directory.path().join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    directory
}

#[test]
fn every_slice_of_a_store_of_format_1_has_a_mask() {
    let store = SliceStore::open(&fixture()).unwrap();
    assert_eq!((store.info().format_version, store.info().dataset.as_str()), (1, "lits"));
    let names: Vec<String> = store.records().iter().map(|record| record.id().to_string()).collect();
    assert_eq!(names, ["2/0000", "2/0001", "2/0002", "10/0000", "10/0001", "10/0002"]);
    let masks = store.for_evaluation();
    for (row, record) in store.records().iter().enumerate() {
        let (z, case) = (record.index as usize, i16::try_from(record.case.parse::<u32>().unwrap()).unwrap());
        let liver = |x: usize, y: usize| z >= 1 && (1..4).contains(&x) && (2..2 + 2 * z).contains(&y);
        for (at, &hu) in store.image(row).iter().enumerate() {
            let (x, y) = (at % 8, at / 8);
            let noise = ((7 * x + 3 * y + 11 * z) as i16 + case) % 23;
            assert_eq!(hu, if x == 0 { -1000 } else { noise + if liver(x, y) { 100 } else { 20 } });
            assert_eq!(masks.mask(row).unwrap()[at], u8::from(liver(x, y)));
        }
        assert_eq!(masks.target_pixels(row), Some(6 * record.index));
        assert!(record.has_mask() && record.has_target() == (z >= 1));
        assert_eq!(record.position_mm, -400.0 + 2.0 * record.index as f32);
    }
    let training = store.for_training([2]).unwrap();
    assert!(training.mask(2).is_some() && training.mask(1).is_none());
}

/// What was trained on it knows it by this.
#[test]
fn the_checksum_of_a_store_of_format_1_is_what_it_was() {
    let checksum = "fc86a017d7b888ff932eb8da0568c076d0ffab085cc7f431e55321d61f6337da";
    assert_eq!(SliceStore::open(&fixture()).unwrap().checksum(), checksum);
}

#[test]
fn a_store_of_format_1_without_masks_has_slices_of_which_nothing_is_known() {
    let directory = copy();
    let info = directory.path().join("store.json");
    let text = fs::read_to_string(&info).unwrap();
    fs::write(&info, text.replace("\"has_masks\": true", "\"has_masks\": false")).unwrap();
    fs::remove_dir_all(directory.path().join("masks")).unwrap();
    let store = SliceStore::open(directory.path()).unwrap();
    assert!(store.records().iter().all(|record| !record.has_mask() && !record.has_target()));
    assert!((0..6).all(|row| store.for_evaluation().mask(row).is_none()));
    fs::write(&info, text.replace("\"has_masks\": true,", "")).unwrap();
    let message = SliceStore::open(directory.path()).err().unwrap().to_string();
    assert!(message.contains("it is of format 1 and has no `has_masks`"), "{message}");
}

#[test]
fn a_store_of_format_1_has_no_digests_to_compare() {
    assert!(SliceStore::open(&fixture()).unwrap().arrays().is_empty());
}

#[test]
fn nothing_is_added_to_a_store_of_format_1_but_it_may_be_replaced() {
    let directory = copy();
    let (path, mut info) = (directory.path(), SliceStore::open(&fixture()).unwrap().info().clone());
    info.format_version = slice_store::FORMAT_VERSION;
    let error = StoreWriter::create(path, info.clone()).err().unwrap();
    assert!(matches!(&error, StoreError::SettingsDiffer { key, .. } if key == "format_version"), "{error}");
    assert!(error.to_string().contains("--redo"), "{error}");
    assert!(SliceStore::open(path).is_ok(), "it is as it was");
    let writer = StoreWriter::replace(path, info).unwrap();
    assert!(writer.cases_before().is_empty());
    assert_eq!(fs::read_dir(path.join("images")).unwrap().count(), 0);
}
