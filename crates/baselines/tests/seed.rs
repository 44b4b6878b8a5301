//! The seed decides the weights. Alone in its program: libtorch's random numbers are one stream for all threads.

use baselines::{MultiMix, MultiMixSettings, TransUnet, TransUnetSettings};
use stage_api::SliceNetwork;
use tch::{Device, Tensor};

fn values(network: &impl SliceNetwork) -> Vec<Tensor> {
    network.tensors().into_iter().map(|t| t.tensor.copy()).collect()
}

#[test]
fn one_seed_gives_one_network_and_another_seed_another() {
    let trans_unet = |seed| {
        let settings = TransUnetSettings { width: 24, layers: 1, mlp: 8, ..TransUnetSettings::default() };
        values(&TransUnet::new(&settings, seed, Device::Cpu).unwrap())
    };
    assert!(trans_unet(3) == trans_unet(3));
    assert!(trans_unet(3) != trans_unet(4));
    let multi_mix = |seed| values(&MultiMix::new(&MultiMixSettings::default(), seed, Device::Cpu).unwrap());
    assert!(multi_mix(3) == multi_mix(3));
    assert!(multi_mix(3) != multi_mix(4));
}
