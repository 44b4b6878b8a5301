//! Plans against those of nnunetv2.

use std::collections::BTreeMap;

use baselines::nnunet::{Case, Fingerprint, Plan};
use baselines::{NnUNet, NnUNetSettings};
use serde::Deserialize;
use tch::Device;

#[derive(Deserialize)]
struct Reference {
    /// How many, and their shape and spacing.
    cases: Vec<(usize, [usize; 3], [f64; 3])>,
    plan: Plan,
}

fn references() -> BTreeMap<String, Reference> {
    serde_json::from_str(include_str!("../fixtures/nnunet/plans.json")).expect("plans")
}

fn fingerprint(reference: &Reference) -> Fingerprint {
    let repeated = |&(count, shape, spacing): &_| std::iter::repeat_n(Case { shape, spacing }, count);
    Fingerprint { cases: reference.cases.iter().flat_map(repeated).collect() }
}

#[test]
fn every_made_fingerprint_is_planned_for_as_nnunetv2_plans() {
    let references = references();
    assert!(references.len() >= 3);
    for (name, reference) in &references {
        assert_eq!(Plan::new(&fingerprint(reference)).unwrap(), reference.plan, "{name}");
    }
}

#[test]
fn slices_of_256_have_7_stages_and_the_default_settings() {
    let plan = Plan::new(&fingerprint(&references()["2000 slices of 256"])).unwrap();
    assert_eq!((plan.features.len(), plan.batch), (7, 49));
    assert_eq!(NnUNetSettings::from(&plan), NnUNetSettings::default());
}

#[test]
fn a_network_can_be_made_by_every_plan() {
    for (name, reference) in references() {
        let mut settings = NnUNetSettings::from(&reference.plan);
        settings.features.fill(1);
        NnUNet::new(&settings, 0, Device::Cpu).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
