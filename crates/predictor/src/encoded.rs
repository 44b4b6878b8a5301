//! A slice and what the encoder makes of it, each part made when it is first asked for, and once.

use stage_api::{Adapters, ClassifierInput, Embedding, Features, Mode, Segmenter};
use std::cell::OnceCell;
use tch::Tensor;

/// One slice and its embeddings.
pub struct EncodedSlice<'a> {
    segmenter: &'a dyn Segmenter,
    is_adapted: bool,
    image: Tensor,
    features: OnceCell<Features>,
    pretrained: OnceCell<Embedding>,
    adapted: OnceCell<Embedding>,
}

impl<'a> EncodedSlice<'a> {
    /// Of one slice `[1, 1, H, H]`. `is_adapted` is what [`Segmenter::is_adapted`] says: it reads every adapter,
    /// so it is asked once for many slices.
    pub fn new(segmenter: &'a dyn Segmenter, is_adapted: bool, image: Tensor) -> Self {
        let (features, pretrained, adapted) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { segmenter, is_adapted, image, features, pretrained, adapted }
    }

    /// The same, where its pretrained embedding is known already.
    #[must_use]
    pub fn with_pretrained(self, embedding: Embedding) -> Self {
        Self { pretrained: embedding.into(), ..self }
    }

    /// What the classifier wants to see of it.
    pub fn input(&self, wanted: ClassifierInput) -> &Tensor {
        match wanted {
            ClassifierInput::Slices => &self.image,
            ClassifierInput::Embedding => &self.pretrained().tensor,
        }
    }

    /// The encoder's embedding as its pretrained file has it.
    pub fn pretrained(&self) -> &Embedding {
        self.pretrained.get_or_init(|| self.segmenter.embed(self.features(), Adapters::Off, Mode::Eval))
    }

    /// The embedding that masks are decoded from: with adapters, where they change anything.
    pub fn adapted(&self) -> &Embedding {
        if !self.is_adapted {
            return self.pretrained();
        }
        self.adapted.get_or_init(|| self.segmenter.embed(self.features(), Adapters::On, Mode::Eval))
    }

    fn features(&self) -> &Features {
        self.features.get_or_init(|| self.segmenter.features(&self.image))
    }
}
