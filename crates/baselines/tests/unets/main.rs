//! U-Net and nnU-Net compute what PyTorch and nnU-Net's own packages compute, and are planned as they plan.
//!
//! The numbers come from `fixtures/unet/make_fixtures.py` and `fixtures/nnunet/make_fixtures.py`.

mod network;
mod plan;
mod unet;
mod window;

use std::collections::BTreeMap;

use stage_api::{NamedTensor, SliceNetwork};
use tch::Tensor;

/// Largest differences that are allowed, as shares of the expected tensor's range.
const TOLERANCE: f64 = 1e-4;
const GRADIENT_TOLERANCE: f64 = 1e-3;

/// A file of tensors, by name.
struct Fixture(BTreeMap<String, Tensor>);

impl Fixture {
    fn load(path: &str) -> Self {
        let path = format!("{}/tests/fixtures/{path}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Self(Tensor::read_safetensors(path).expect("the fixture is there").into_iter().collect())
    }

    fn get(&self, name: &str) -> Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("the fixture has no {name}")).shallow_clone()
    }

    /// Gives the network every weight that the fixture has, by name; neither has others.
    fn give_weights(&self, network: &impl SliceNetwork) {
        let expected: Vec<&str> = self.0.keys().filter_map(|name| name.strip_prefix("weight/")).collect();
        let mut tensors = network.tensors();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), expected);
        for NamedTensor { name, mut tensor, .. } in tensors {
            let weight = self.get(&format!("weight/{name}"));
            assert_eq!(tensor.size(), weight.size(), "{name}");
            tch::no_grad(|| tensor.copy_(&weight));
        }
    }

    fn check_gradients(&self, network: &impl SliceNetwork) {
        let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
        let nil = 1e-4 * network.tensors().iter().map(|t| largest(&t.tensor.grad())).fold(0.0, f64::max);
        for NamedTensor { name, tensor, .. } in network.tensors() {
            let (found, expected) = (tensor.grad(), self.get(&format!("gradient/{name}")));
            if largest(&expected) < nil {
                // A bias before a normalisation changes nothing: its gradient is rounding alone.
                assert!(largest(&found) < nil, "gradient of {name}");
                continue;
            }
            let worst = largest(&(found - &expected)) / spread(&expected);
            assert!(worst <= GRADIENT_TOLERANCE, "gradient of {name}: differs by {worst:.1e} of its range");
        }
    }
}

/// The range of a tensor's values; of a single one its size.
fn spread(tensor: &Tensor) -> f64 {
    let value = |tensor: Tensor| tensor.double_value(&[]);
    if tensor.numel() == 1 { value(tensor.abs()) } else { value(tensor.max()) - value(tensor.min()) }
}

fn assert_close(name: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), expected.size(), "{name}");
    let worst = (found - expected).abs().max().double_value(&[]) / spread(expected);
    assert!(worst <= tolerance, "{name}: differs by {worst:.1e} of its range");
}

fn parameters(network: &impl SliceNetwork) -> i64 {
    network.tensors().iter().map(|t| t.tensor.numel() as i64).sum()
}

/// Settings from some of their keys, the others being as by default.
fn settings<T: serde::de::DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).expect("settings")
}
