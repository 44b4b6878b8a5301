//! Tiles against nnunetv2's sliding window.

use baselines::nnunet::{importance, tile_starts};
use serde::Deserialize;
use stage_api::{Mode, SliceNetwork};

use super::{Fixture, TOLERANCE, assert_close, network};

#[test]
fn importance_is_the_references_gaussian() {
    let fixture = Fixture::load("nnunet/window");
    for tile in [[8, 12], [7, 5], [32, 24]] {
        let name = format!("importance/{}x{}", tile[0], tile[1]);
        assert_close(&name, &importance(tile), &fixture.get(&name), 1e-9);
    }
}

#[derive(Deserialize)]
struct Tiles {
    image: i64,
    tile: i64,
    starts: Vec<i64>,
}

#[test]
fn tiles_begin_where_the_references_do() {
    let numbers: serde_json::Value = serde_json::from_str(include_str!("../fixtures/nnunet/numbers.json")).unwrap();
    let references: Vec<Tiles> = serde_json::from_value(numbers["tiles"].clone()).unwrap();
    assert!(references.iter().any(|tiles| tiles.starts.len() > 2));
    for Tiles { image, tile, starts } in references {
        assert_eq!(tile_starts(image, tile), starts, "{image} by {tile}");
    }
    assert_eq!(tile_starts(10, 16), [0]);
}

#[test]
fn slices_larger_and_smaller_than_a_tile_are_predicted_as_by_the_references_predictor() {
    let fixture = Fixture::load("nnunet/window");
    for (name, mirrored) in [("plain", false), ("mirrored", true)] {
        let network = network::small(mirrored);
        for size in ["45x61", "20x61"] {
            let found = network.forward(&fixture.get(&format!("{name}/{size}/slices")).unsqueeze(0), Mode::Eval);
            let expected = fixture.get(&format!("{name}/{size}/logits"));
            assert_close(&format!("{name} {size}"), &found.view_as(&expected), &expected, TOLERANCE);
        }
    }
}
