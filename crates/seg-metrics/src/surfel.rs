//! How much surface runs through a corner between voxels: the table of DeepMind's surface-distance, which is that of
//! marching cubes (Lorensen and Cline, "Marching Cubes", 1987) with its surfaces through the middles of edges.

use std::sync::LazyLock;

/// Up to four triangles, each by what it covers of the three faces of a cube that it is seen from, in eighths of a face.
type Triangles = [[u8; 3]; 4];

/// One code of each kind: rotating, mirroring and exchanging inside and outside makes all others of them.
const KINDS: [(u8, &[[u8; 3]]); 13] = [
    (0b0000_0001, &[[1, 1, 1]]),
    (0b0000_0011, &[[2, 2, 0], [2, 2, 0]]),
    (0b0000_0110, &[[1, 1, 1], [1, 1, 1]]),
    (0b0001_1000, &[[1, 1, 1], [1, 1, 1]]),
    (0b0000_0111, &[[4, 0, 0], [2, 2, 2], [1, 1, 1]]),
    (0b0001_1001, &[[0, 2, 2], [0, 2, 2], [1, 1, 1]]),
    (0b0001_0110, &[[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
    (0b0000_1111, &[[4, 0, 0], [4, 0, 0]]),
    (0b0001_0111, &[[2, 2, 2], [2, 2, 2], [1, 1, 1], [1, 1, 1]]),
    (0b0001_1011, &[[3, 3, 3], [0, 2, 2], [2, 0, 2], [1, 1, 1]]),
    (0b0001_1110, &[[4, 0, 0], [2, 2, 2], [1, 1, 1], [1, 1, 1]]),
    (0b0011_1100, &[[2, 2, 0], [2, 2, 0], [2, 2, 0], [2, 2, 0]]),
    (0b0110_1001, &[[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]),
];

static TRIANGLES: LazyLock<[Triangles; 256]> = LazyLock::new(|| {
    const AXES: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let mut table = [Triangles::default(); 256];
    for (kind, triangles) in KINDS {
        for axes in AXES {
            let mut turned = Triangles::default();
            for (turned, triangle) in turned.iter_mut().zip(triangles) {
                *turned = axes.map(|axis| triangle[axis]);
            }
            for mirrored in 0..8 {
                let code = turn(kind, axes, mirrored);
                (table[usize::from(code)], table[usize::from(!code)]) = (turned, turned);
            }
        }
    }
    table
});

/// The code with axis `axes[i]` put in the place of axis `i`, then mirrored along the axes whose bits are set.
fn turn(code: u8, axes: [usize; 3], mirrored: usize) -> u8 {
    (0..8).fold(0, |turned, corner: usize| {
        let place = axes.iter().fold(0, |place, axis| place << 1 | (corner >> (2 - axis) & 1));
        turned | (code >> (7 - corner) & 1) << (7 - (place ^ mirrored))
    })
}

/// Area of the surface that a corner with each 2 × 2 × 2 code stands for, in the square of the unit of `spacing`.
pub(crate) fn areas([z, y, x]: [f64; 3]) -> [f64; 256] {
    let faces = [y * x, z * x, z * y];
    TRIANGLES.map(|triangles| {
        let area = |triangle: [u8; 3]| {
            let squares = triangle.iter().zip(faces).map(|(&eighths, face)| (f64::from(eighths) / 8.0 * face).powi(2));
            squares.sum::<f64>().sqrt()
        };
        triangles.map(area).iter().sum()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn areas_are_those_of_surface_distance() {
        let fixture: Value = serde_json::from_str(include_str!("../tests/fixtures/volumes.json")).unwrap();
        let tables = fixture["areas"].as_array().unwrap();
        assert_eq!(tables.len(), 2);
        for table in tables {
            let numbers = |key: &str| -> Vec<f64> {
                table[key].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
            };
            let ours = super::areas(numbers("spacing").try_into().unwrap());
            for (code, (ours, theirs)) in ours.into_iter().zip(numbers("areas")).enumerate() {
                assert!((ours - theirs).abs() < 1e-11, "code {code:08b}: {ours}, reference {theirs}");
            }
        }
    }
}
