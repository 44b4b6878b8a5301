//! What a configuration may say: unknown keys, overrides, and the range of every number.

use baselines::NnUNetSettings;
use slice_augment::Augmentation;
use slice_sampling::{NoSights, Sights, SubsetStrategy, UniformSubset, select};
use stage_trial::{SAMPLING, store_of};
use trainer::config::{AugmentationConfig, Config};
use trainer::planned::{asks, keep, plan};

const SMALL: &str = "[sampling]\nlabelled = 5\n[[phase]]\nname = \"all\"\nepochs = 1\n";

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let error = Config::parse(&format!("{SMALL}\n[optimizer]\nema_decya = 0.9\n"), &[]).unwrap_err().to_string();
    assert!(error.contains("did you mean `ema_decay`?") && error.contains("line"), "{error}");
    let nested = Config::parse(SMALL, &["segmenter.settings.lora_ranc=4".into()]).unwrap_err().to_string();
    assert!(nested.contains("did you mean `lora_rank`?"), "{nested}");
}

#[test]
fn overrides_replace_values_of_every_type() {
    let set = ["seed=7", "classifier.kind=other", "sampling.labelled=50", "optimizer.lr.lora=2e-4"].map(String::from);
    let config = Config::parse(SMALL, &set).unwrap();
    assert_eq!((config.seed, config.classifier.kind.as_str(), config.sampling.labelled), (7, "other", 50.into()));
    assert_eq!(config.optimizer.rate("lora"), 2e-4);
    assert!(Config::parse(SMALL, &["seed".into()]).unwrap_err().to_string().contains("KEY=VALUE"));
    assert!(Config::parse(SMALL, &["seed.x=1".into(), "seed=0".into()]).is_ok());
}

#[test]
fn values_that_make_no_sense_are_refused_with_what_was_expected() {
    for (set, expected) in [
        ("segmentation_loss.iou=-1", "`segmentation_loss.iou` is -1, expected a number of at least 0"),
        ("optimizer.schedule={step={factor=0.5,period=0}}", "a period of at least 1"),
        ("optimizer.schedule={step={factor=0.5,perod=9}}", "did you mean `period`?"),
        ("optimizer.kind=adamww", "did you mean `adamw`?"),
        ("optimizer.nesterov=true", "needs `optimizer.kind = \"sgd\"`"),
        ("optimizer.momentum=1.0", "0 or more, less than 1"),
        ("classifier.focal_gamma=-0.5", "`classifier.focal_gamma` is -0.5, expected a number of at least 0"),
        ("prompt.threshold=nan", "`prompt.threshold` is NaN, expected more than 0, less than 1"),
        ("training_prompts.cam_thresholds=[0.2, nan]", "`training_prompts.cam_thresholds[1]` is NaN, expected"),
        ("segmenter.settings.lora_dropout=nan", "`lora_dropout` is NaN, expected 0 or more, less than 1"),
    ] {
        let error = Config::parse(SMALL, &[set.into()]).unwrap_err().to_string();
        assert!(error.contains(expected), "{set}: {error}");
    }
}

#[test]
fn an_augmentation_table_is_laid_over_its_own_default() {
    let set = ["augmentation.classifier.noise_hu=0", "augmentation.strong.blur_px=2"].map(String::from);
    let found = Config::parse(SMALL, &set).unwrap().augmentation;
    let default = AugmentationConfig::default();
    assert_eq!(found.classifier, Augmentation { noise_hu: 0.0, ..default.classifier });
    assert_eq!(found.strong, Augmentation { blur_px: 2.0, ..default.strong });
    assert!(found.labelled.is_off() && !default.classifier.is_off());
    for (set, expected) in [
        ("augmentation.classifier.noise=3", "did you mean `noise_hu`?"),
        ("augmentation.labelled.shift=2", "`augmentation.labelled.shift` is 2, expected 0 to 0.9"),
        ("augmentation.strong.rotate_deg=5", "`augmentation.strong.rotate_deg` has no effect"),
    ] {
        let error = format!("{:#}", Config::parse(SMALL, &[set.into()]).unwrap_err());
        assert!(error.contains(expected), "{set}: {error}");
    }
}

#[test]
fn patience_needs_something_to_wait_for() {
    let text = format!("{SMALL}patience = 2\n");
    assert_eq!(Config::parse(&text, &[]).unwrap().phases[0].patience, 2);
    for text in [format!("{text}labelled_passes = 0\n"), text.replace("= 5\n", "= 5\nvalidation_slices = 0\n")] {
        assert!(Config::parse(&text, &[]).unwrap_err().to_string().contains("no validation Dice to wait for"));
    }
}

#[test]
fn a_resolved_configuration_reads_back_as_itself() {
    let step = "optimizer.schedule={step={factor=0.5,period=9}}".to_owned();
    for set in [vec![], vec![step]] {
        let config = Config::parse(SMALL, &set).unwrap();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::to_string(&Config::parse(&text, &[]).unwrap()).unwrap(), text);
    }
}

/// Every fractional number of a table, by its path, with the same number in `place` of it.
fn replaced(table: &toml::Value, place: f64) -> Vec<(String, toml::Value)> {
    let children: Vec<(String, &toml::Value)> = match table {
        toml::Value::Table(inner) => inner.iter().map(|(key, value)| (key.clone(), value)).collect(),
        toml::Value::Array(items) => items.iter().enumerate().map(|(i, item)| (i.to_string(), item)).collect(),
        toml::Value::Float(_) => return vec![(String::new(), toml::Value::Float(place))],
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    for (key, child) in children {
        for (path, value) in replaced(child, place) {
            let mut whole = table.clone();
            match &mut whole {
                toml::Value::Table(inner) => drop(inner.insert(key.clone(), value)),
                toml::Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
                _ => unreachable!("it has children"),
            }
            found.push((if path.is_empty() { key.clone() } else { format!("{key}.{path}") }, whole));
        }
    }
    found
}

#[test]
fn no_number_of_a_configuration_may_be_none() {
    let set = [
        "optimizer.schedule={step={factor=0.5,period=9}}",
        "optimizer.lr_scale={'classifier.*'=0.5}",
        "classifier.positive_weight=0.5",
    ];
    let config = Config::parse(SMALL, &set.map(String::from)).unwrap();
    let table = toml::Value::try_from(&config).unwrap();
    for place in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let all = replaced(&table, place);
        assert!(all.len() > 60, "{} numbers", all.len());
        for (path, value) in all {
            let error = Config::parse(&toml::to_string(&value).unwrap(), &[]).map(drop).unwrap_err().to_string();
            let key = path.split('.').rfind(|part| part.parse::<usize>().is_err()).unwrap();
            assert!(error.contains(key) && error.contains("expected"), "{path} = {place}: {error}");
        }
    }
}

#[test]
fn numbers_at_the_wrong_side_are_refused_and_those_at_the_end_are_not() {
    for (key, wrong, right) in [
        ("optimizer.lr.decoder", "-1e-4", "0.0"),
        ("optimizer.weight_decay", "-0.1", "0.0"),
        ("optimizer.betas", "[0.9, 1.0]", "[0.0, 0.0]"),
        ("optimizer.betas", "[-0.1, 0.9]", "[0.99, 0.9999]"),
        ("training_prompts.jitter_outward_px", "-1.0", "0.0"),
        ("training_prompts.cam_thresholds", "[0.2, 1.0]", "[0.01]"),
        ("classifier.focal_gamma", "-0.5", "0.5"),
        ("classifier.positive_weight", "1.5", "1.0"),
        ("sampling.keep_rate", "0.0", "1.0"),
        ("evaluation.oracle_margin_px", "-3.0", "0.0"),
    ] {
        let parsed = |value: &str| Config::parse(SMALL, &[format!("{key}={value}")]);
        let error = parsed(wrong).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("expected"), "{error}");
        assert!(parsed(right).is_ok(), "{key} = {right}");
    }
}

/// A segmenter that plans for itself.
const PLANNED: &str = r#"
[segmenter]
kind = "nnunet"
settings = { plan = true, mirrored = false }
[classifier]
kind = "none"
[[phase]]
name = "all"
epochs = 1
encoder = "trained"
"#;

fn planned(change: impl Fn(String) -> String) -> Config {
    Config::parse(&change(format!("{SAMPLING}{PLANNED}")), &[]).unwrap()
}

#[test]
fn a_plan_is_made_for_the_slices_of_the_store_and_kept_by_the_run() {
    let place = tempfile::tempdir().unwrap();
    for (side, features) in [(64, 5), (256, 7)] {
        let slices = || (vec![0i16; 2 * side * side], vec![1u8; 2 * side * side]);
        let path = place.path().join(side.to_string());
        let store = store_of(&path, side, (0..4).map(|_| slices())).unwrap();
        let mut own = planned(|text| text);
        let strategy: (&dyn SubsetStrategy, &dyn Sights) = (&UniformSubset, &NoSights);
        let selection = select(store.records(), &own.sampling, strategy, 0).unwrap();
        plan(&mut own, &store, &selection).unwrap();
        let settings: NnUNetSettings = own.segmenter.settings.clone().try_into().unwrap();
        assert_eq!((settings.patch, settings.features.len()), ([side as i64; 2], features), "{settings:?}");
        assert!(!settings.mirrored, "what the plan leaves open stays as it was set");
        assert!(own.phases[0].batch_labelled >= 2, "nnU-Net has two slices at least");
        // Whoever goes on with the run asks for a plan again, and gets the same.
        let mut again = planned(|text| text);
        keep(&own, &mut again).unwrap();
        assert_eq!(toml::to_string(&again).unwrap(), toml::to_string(&own).unwrap());
        let mut other = planned(|text| text.replace("mirrored = false", "mirrored = true"));
        keep(&own, &mut other).unwrap();
        assert_ne!(toml::to_string(&other).unwrap(), toml::to_string(&own).unwrap(), "what no plan decides differs");
    }
}

#[test]
fn a_plan_is_of_nnu_net_and_of_what_nobody_has_set() {
    let refused = |from: &str, to: &str| asks(&planned(|text| text.replace(from, to))).unwrap_err().to_string();
    assert!(!asks(&planned(|text| text.replace("\"nnunet\"", "\"unet\""))).unwrap(), "another segmenter's own setting");
    assert!(refused("plan = true,", "plan = true, features = [8, 8],").contains("`features` stands beside it"));
    assert!(refused("plan = true", "plan = 1").contains("is 1, expected true or false"));
    let mut none = planned(|text| text.replace("plan = true", "plan = false"));
    assert!(!asks(&none).unwrap());
    let own = planned(|text| text.replace("plan = true, ", ""));
    keep(&own, &mut none).unwrap();
    assert_eq!(toml::to_string(&none).unwrap(), toml::to_string(&own).unwrap());
}
