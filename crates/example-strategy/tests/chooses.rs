//! A run labels what the swapped strategy chose.

use slice_sampling::NoSights;
use stage_trial::{SAMPLING, squares};
use trainer::config::Config;

#[test]
fn the_middle_slices_of_as_many_patients_as_possible_are_labelled() {
    let folder = tempfile::tempdir().unwrap();
    let store = squares(&folder.path().join("store")).unwrap();
    let config =
        Config::parse(&format!("{SAMPLING}strategy = \"middle\"\n[[phase]]\nname = \"all\"\nepochs = 1\n"), &[])
            .unwrap();
    let registry = example_strategy::registry();
    let strategy = registry.strategies[&config.sampling.strategy].as_ref();
    let selection = slice_sampling::select(store.records(), &config.sampling, (strategy, &NoSights), 0).unwrap();
    // Slices 1 and 3 of each patient show the square; of two training patients one slice each.
    let labelled: Vec<String> = selection.labelled.iter().map(ToString::to_string).collect();
    assert_eq!(labelled, ["0/0003", "1/0003"]);
}
