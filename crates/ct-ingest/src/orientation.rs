//! Which way voxel axes run through the patient.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A direction of the patient's body along which a voxel axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// To the patient's right.
    Right,
    /// To the patient's left.
    Left,
    /// To the front.
    Anterior,
    /// To the back.
    Posterior,
    /// To the head.
    Superior,
    /// To the feet.
    Inferior,
}

impl Toward {
    const ALL: [Self; 6] = [Self::Right, Self::Left, Self::Anterior, Self::Posterior, Self::Superior, Self::Inferior];

    /// The axis of NIfTI's world coordinates (0: right, 1: anterior, 2: superior are positive) and the sign on it.
    pub(crate) fn world(self) -> (usize, f64) {
        let place = Self::ALL.iter().position(|&toward| toward == self).unwrap_or_default();
        (place / 2, if place % 2 == 0 { 1.0 } else { -1.0 })
    }

    fn from_world(axis: usize, sign: f64) -> Self {
        Self::ALL[2 * axis + usize::from(sign < 0.0)]
    }

    fn letter(self) -> char {
        ['R', 'L', 'A', 'P', 'S', 'I'][Self::ALL.iter().position(|&toward| toward == self).unwrap_or_default()]
    }
}

/// The directions of a volume's three voxel axes, one of 48; written as nibabel's axis codes, for example `LPS`: the first
/// index increases to the patient's left, the second to posterior, the third to superior.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation(pub(crate) [Toward; 3]);

impl Orientation {
    /// The orientation that comes closest to an affine whose rows are right, anterior, superior; `None` if the affine
    /// flattens or bends space into something that isn't finite.
    ///
    /// As nibabel's `io_orientation`: the rotation nearest to the affine (its polar factor) decides, and the voxel axis
    /// that is aligned best chooses first.
    pub fn of_affine(affine: &[[f64; 4]; 4]) -> Option<Self> {
        let rotation = nearest_rotation(affine)?;
        let mut order = [0, 1, 2];
        let alignment = |voxel: usize| rotation.iter().map(|row| row[voxel].powi(2)).fold(0.0, f64::max);
        order.sort_by(|&a, &b| alignment(b).total_cmp(&alignment(a)));
        let mut free = [true; 3];
        let mut axes = [Toward::Right; 3];
        for voxel in order {
            let world = (0..3)
                .filter(|&world| free[world])
                .max_by(|&a, &b| rotation[a][voxel].abs().total_cmp(&rotation[b][voxel].abs()))?;
            free[world] = false;
            axes[voxel] = Toward::from_world(world, rotation[world][voxel]);
        }
        Some(Self(axes))
    }

    /// What this orientation is in truth, if the axes that another file calls `wrong` are `right`: a mask's, whose image has a
    /// header that is mistaken in the same way.
    pub(crate) fn corrected(self, wrong: Self, right: Self) -> Self {
        Self(self.0.map(|toward| {
            let (world, sign) = toward.world();
            let axis = wrong.0.iter().position(|other| other.world().0 == world).unwrap_or_default();
            let (true_world, true_sign) = right.0[axis].world();
            Toward::from_world(true_world, true_sign * sign * wrong.0[axis].world().1)
        }))
    }

    /// All 48 orientations.
    pub fn all() -> impl Iterator<Item = Self> {
        let of = |place: usize| Toward::ALL[place];
        (0..6 * 6 * 6)
            .map(move |i| Self([of(i / 36), of(i / 6 % 6), of(i % 6)]))
            .filter(|orientation| orientation.is_whole())
    }

    /// An affine of that orientation with the given spacing in mm and its origin at voxel 0.
    pub(crate) fn affine(self, spacing: [f64; 3]) -> [[f64; 4]; 4] {
        let mut affine = [[0.0; 4]; 4];
        affine[3][3] = 1.0;
        for (voxel, toward) in self.0.into_iter().enumerate() {
            let (world, sign) = toward.world();
            affine[world][voxel] = sign * spacing[voxel];
        }
        affine
    }

    fn is_whole(self) -> bool {
        let mut worlds = self.0.map(|toward| toward.world().0);
        worlds.sort_unstable();
        worlds == [0, 1, 2]
    }
}

/// The orthogonal matrix nearest to the affine with its columns normalised: Newton's iteration for the polar factor,
/// X ← (X + X⁻ᵀ) / 2 (Higham 1986), which converges quadratically.
pub(crate) fn nearest_rotation(affine: &[[f64; 4]; 4]) -> Option<[[f64; 3]; 3]> {
    let mut x = [[0.0; 3]; 3];
    for voxel in 0..3 {
        let norm = (0..3).map(|world| affine[world][voxel].powi(2)).sum::<f64>().sqrt();
        for world in 0..3 {
            x[world][voxel] = affine[world][voxel] / norm;
        }
    }
    for _ in 0..100 {
        let cofactors = cofactors(&x);
        let determinant: f64 = (0..3).map(|column| x[0][column] * cofactors[0][column]).sum();
        if !determinant.is_finite() || determinant.abs() < 1e-6 {
            return None;
        }
        let mut change = 0.0_f64;
        for row in 0..3 {
            for column in 0..3 {
                let next = 0.5 * (x[row][column] + cofactors[row][column] / determinant);
                change = change.max((next - x[row][column]).abs());
                x[row][column] = next;
            }
        }
        if change < 1e-12 {
            break;
        }
    }
    Some(x)
}

/// The cofactor matrix: the determinant times the transposed inverse.
pub(crate) fn cofactors(m: &[[f64; 3]; 3]) -> [[f64; 3]; 3] {
    std::array::from_fn(|row| {
        std::array::from_fn(|column| {
            let (r1, r2) = ((row + 1) % 3, (row + 2) % 3);
            let (c1, c2) = ((column + 1) % 3, (column + 2) % 3);
            m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
        })
    })
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|toward| write!(f, "{}", toward.letter()))
    }
}

/// A text is not an orientation.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{0}' is not an orientation: expected three letters, one each of L or R, A or P, S or I, for example 'LPS': \
     the directions in which the first, second and third voxel index increase"
)]
pub struct ParseOrientationError(String);

impl FromStr for Orientation {
    type Err = ParseOrientationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let axes: Option<Vec<Toward>> =
            text.chars().map(|c| Toward::ALL.into_iter().find(|toward| toward.letter() == c)).collect();
        axes.and_then(|axes| <[Toward; 3]>::try_from(axes).ok())
            .map(Self)
            .filter(|orientation| orientation.is_whole())
            .ok_or_else(|| ParseOrientationError(text.to_owned()))
    }
}

impl Serialize for Orientation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Orientation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn there_are_48_orientations_and_each_is_read_back_from_its_affine_and_its_letters() {
        assert_eq!(Orientation::all().count(), 48);
        for orientation in Orientation::all() {
            assert_eq!(Orientation::of_affine(&orientation.affine([0.7, 2.0, 5.0])), Some(orientation));
            assert_eq!(orientation.to_string().parse::<Orientation>().unwrap(), orientation);
        }
    }

    #[test]
    fn a_mask_along_other_axes_is_corrected_as_its_image_is() {
        let of = |text: &str| text.parse::<Orientation>().unwrap();
        // The image's file says RAS and is LPS in truth: what is called right is left.
        assert_eq!(of("RAS").corrected(of("RAS"), of("LPS")), of("LPS"));
        assert_eq!(of("SAL").corrected(of("RAS"), of("LPS")), of("SPR"));
        // The image's first axis is called right and runs to superior, the third the other way round.
        assert_eq!(of("IPL").corrected(of("RAS"), of("SAR")), of("LPI"));
        for any in Orientation::all() {
            assert_eq!(any.corrected(of("LPS"), of("LPS")), any);
            assert_eq!(any.corrected(any, of("PIR")), of("PIR"));
        }
    }

    #[test]
    fn letters_that_leave_a_direction_out_are_refused() {
        for text in ["", "LP", "LPSI", "LRS", "lps", "XYZ"] {
            assert!(text.parse::<Orientation>().is_err(), "{text}");
        }
    }

    #[test]
    fn flat_and_endless_affines_have_no_orientation() {
        let mut affine = Orientation::all().next().unwrap().affine([1.0, 1.0, 1.0]);
        affine[2] = affine[1];
        assert_eq!(Orientation::of_affine(&affine), None);
        assert_eq!(Orientation::of_affine(&[[f64::NAN; 4]; 4]), None);
        assert_eq!(Orientation::of_affine(&[[0.0; 4]; 4]), None);
    }

    proptest! {
        #[test]
        fn no_affine_makes_it_panic(values in proptest::array::uniform12(any::<f64>())) {
            let mut affine = [[0.0; 4]; 4];
            for (i, value) in values.into_iter().enumerate() {
                affine[i / 4][i % 4] = value;
            }
            if let Some(orientation) = Orientation::of_affine(&affine) {
                prop_assert!(orientation.is_whole());
            }
        }
    }
}
