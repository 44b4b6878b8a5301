//! Values that are a formula of each tensor's name, as `../fixtures/make_published_fixtures.py` defines it, and its files.

use std::collections::BTreeMap;

use stage_api::{NamedTensor, SliceNetwork};
use tch::{Device, Kind, Tensor};

/// Largest difference that is allowed, as a share of the tensor's range.
pub const TOLERANCE: f64 = 1e-4;
pub const GRADIENT_TOLERANCE: f64 = 1e-3;

/// `offset + scale · u`, `u` in `[-1, 1)`.
pub fn filled(name: &str, shape: &[i64], offset: f64, scale: f64) -> Tensor {
    let seed = name.bytes().fold(0x811C_9DC5_u32, |seed, byte| (seed ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let value = |i: u32| {
        let mut x = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9));
        x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
        x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
        x ^= x >> 16;
        (offset + scale * (f64::from(x >> 8) / f64::from(1 << 23) - 1.0)) as f32
    };
    let count = shape.iter().product::<i64>() as u32;
    Tensor::from_slice(&(0..count).map(value).collect::<Vec<f32>>()).view(shape)
}

fn by_formula(name: &str, shape: &[i64]) -> Tensor {
    let (offset, scale) = if name.ends_with("running_var") || (shape.len() == 1 && name.ends_with("weight")) {
        (1.0, 0.2)
    } else if shape.len() == 1 {
        (0.0, 0.2)
    } else if name.ends_with("position_embeddings") {
        (0.0, 4.0)
    } else if name == "encoder.fc.weight" {
        (0.0, 60.0)
    } else {
        (0.0, (3.0 / shape[1..].iter().product::<i64>() as f64).sqrt())
    };
    filled(name, shape, offset, scale)
}

/// Fills those of the network's tensors that `which` names.
pub fn fill(network: &impl SliceNetwork, which: impl Fn(&str) -> bool) {
    for NamedTensor { name, tensor, .. } in network.tensors().into_iter().filter(|t| which(&t.name)) {
        tch::no_grad(|| tensor.shallow_clone().copy_(&by_formula(&name, &tensor.size())));
    }
}

pub fn slices(side: i64) -> Tensor {
    filled("slices", &[2, 1, side, side], 0.5, 0.5)
}

/// A disc in each of two masks.
pub fn discs(side: i64) -> Tensor {
    let disc = |cx: i64, cy: i64| {
        let inside = move |i: i64| (i % side - cx).pow(2) + (i / side - cy).pow(2) < (side / 4).pow(2);
        (0..side * side).map(move |i| if inside(i) { 1.0_f32 } else { 0.0 })
    };
    let values: Vec<f32> = disc(side / 2, side / 3).chain(disc(side / 3, side / 2)).collect();
    Tensor::from_slice(&values).view([2, 1, side, side])
}

/// A file of thinned tensors.
pub struct Fixture(BTreeMap<String, Tensor>);

impl Fixture {
    pub fn read(name: &str) -> Self {
        let path = format!("{}/tests/fixtures/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Self(Tensor::read_safetensors(path).expect("the fixture can be read").into_iter().collect())
    }

    /// Names behind a prefix.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        self.0.keys().filter_map(|key| Some(key.strip_suffix(".range")?.strip_prefix(prefix)?.to_owned())).collect()
    }

    fn range(&self, name: &str) -> f64 {
        let range = &self.0[&format!("{name}.range")];
        range.double_value(&[1]) - range.double_value(&[0])
    }

    /// Compares the values that the fixture kept of a tensor, `count` or some more.
    pub fn check(&self, name: &str, found: &Tensor, count: usize, tolerance: f64) {
        self.check_by(name, found, count, tolerance * self.range(name));
    }

    fn check_by(&self, name: &str, found: &Tensor, count: usize, allowed: f64) {
        let found = found.detach().contiguous().flatten(0, -1);
        let stride = (found.numel() / count) | 1;
        let found = found.slice(0, 0, None, stride as i64);
        assert_eq!(found.size(), self.0[name].size(), "{name}");
        let worst = (found - &self.0[name]).abs().max().double_value(&[]);
        println!("{name}: {worst:.1e}, allowed {allowed:.1e}");
        assert!(worst <= allowed, "{name}: differs by {worst:.2e}, allowed are {allowed:.2e}");
    }

    /// Compares a small tensor that was kept whole.
    pub fn check_whole(&self, name: &str, found: &Tensor, tolerance: f64) {
        let expected = &self.0[name];
        let scale = expected.abs().max().double_value(&[]);
        let worst = (found.detach().view_as(expected) - expected).abs().max().double_value(&[]) / scale;
        assert!(worst <= tolerance, "{name}: differs by {worst:.2e} of its largest value");
    }

    /// Compares the gradients of all parameters, the reference's and the network's being of the same ones. What is 0 but for
    /// rounding (biases that a normalisation takes away again) has no range of its own: a thousandth of the widest is the
    /// least that counts.
    pub fn check_gradients(&self, network: &impl SliceNetwork) {
        let names = self.names("gradient.");
        let widest = names.iter().map(|name| self.range(&format!("gradient.{name}"))).fold(0.0, f64::max);
        let tensors = network.tensors().into_iter();
        let mut found: BTreeMap<String, Tensor> =
            tensors.map(|t| (t.name, t.tensor.grad())).filter(|(_, gradient)| gradient.defined()).collect();
        for name in names {
            let gradient = found.remove(&name).unwrap_or_else(|| panic!("{name} has no gradient"));
            let key = format!("gradient.{name}");
            let range = self.range(&key).max(widest / 1000.0);
            self.check_by(&key, &gradient, 60, GRADIENT_TOLERANCE * range);
        }
        assert!(found.is_empty(), "gradients that the reference has not: {:?}", found.keys());
    }
}

/// Names and shapes of the published network, and how many parameters it has.
#[derive(serde::Deserialize)]
pub struct Published {
    pub parameters: i64,
    pub shapes: BTreeMap<String, Vec<i64>>,
}

pub fn published(network: &str) -> Published {
    let all: BTreeMap<String, Published> =
        serde_json::from_str(include_str!("../fixtures/published_state_dicts.json")).expect("the fixture is JSON");
    all.into_iter().find(|(name, _)| name == network).expect("the fixture has it").1
}

/// Asserts that the network has the published names, shapes and number of parameters.
pub fn assert_published(name: &str, network: &impl SliceNetwork) {
    let published = published(name);
    let tensors = network.tensors();
    let parameters = tensors.iter().filter(|t| t.group.is_trainable()).map(|t| t.tensor.numel() as i64).sum::<i64>();
    assert_eq!(parameters, published.parameters);
    let count = tensors.len();
    let shapes: BTreeMap<String, Vec<i64>> = tensors.into_iter().map(|t| (t.name, t.tensor.size())).collect();
    assert_eq!(shapes.len(), count, "names are given once");
    assert_eq!(shapes, published.shapes);
}

/// The largest difference of two tensors.
pub fn apart(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

pub fn random_slices(batch: i64, height: i64, width: i64) -> Tensor {
    Tensor::rand([batch, 1, height, width], (Kind::Float, Device::Cpu))
}
