//! Colon and small bowel: loops that fill what the other organs leave, with stool, fluid, contrast medium or gas, and the
//! vessels of the mesentery between them.

use super::Tissues;
use crate::canvas::{Area, Canvas};
use crate::random::Draw;
use crate::shape::{Noise, Point, Rod, ramp};

/// What fills a piece of bowel.
#[derive(Clone, Copy)]
enum Content {
    /// Stool: HU of its mass, and the share of gas in it.
    Stool(f32, f32),
    /// A fluid of this HU.
    Fluid(f32),
    /// Gas above a fluid.
    Gas,
    /// Collapsed: walls only.
    None,
}

struct Piece {
    rod: Rod,
    content: Content,
    wall: f32,
}

/// The bowel of one patient.
pub(crate) struct Bowel {
    colon: Vec<Piece>,
    small: Vec<Piece>,
    vessels: Vec<Rod>,
    /// Distance between the colon's folds in mm.
    folds: f32,
}

impl Bowel {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let vessels = (0..170)
            .map(|_| {
                let at = draw.near([2.0, -28.0, -150.0], [95.0, 55.0, 90.0]);
                let way = draw.direction();
                Rod::new(at, [at[0] + 12.0 * way[0], at[1] + 12.0 * way[1], at[2] + 16.0 * way[2]], [1.7, 1.3])
            })
            .collect();
        Self { colon: colon(draw), small: small_bowel(draw), vessels, folds: draw.within(5.0, 8.0) }
    }

    pub(crate) fn paint(&self, canvas: &mut Canvas, t: &Tissues, noise: &Noise) {
        for piece in self.colon.iter().chain(&self.small) {
            if canvas.cuts_rod(&piece.rod) {
                self.paint_piece(canvas, t, noise, piece);
            }
        }
        for rod in &self.vessels {
            if canvas.cuts_rod(rod) {
                canvas.place(Area::of_rod(rod), 0.0, |v| (rod.distance(v.p).max(v.abdomen() + 6.0), t.veins));
            }
        }
    }

    fn paint_piece(&self, canvas: &mut Canvas, t: &Tissues, noise: &Noise, piece: &Piece) {
        let top = piece.rod.from[1].min(piece.rod.to[1]);
        canvas.place_layered(
            Area::of_rod(&piece.rod),
            if matches!(piece.content, Content::Stool(..)) { 2.0 } else { 0.8 },
            |v| {
                let folds = noise.at([v.p[0] / self.folds / 2.0, v.p[1] / self.folds / 2.0, v.p[2] / self.folds / 2.0]);
                (piece.rod.distance(v.p) + 3.0 * v.mid + 2.0 * folds).max(v.abdomen() + 3.0)
            },
            |v, depth| {
                let grain = noise.at(v.p.map(|c| c / 3.6 + 5.0));
                let wall = t.gut_wall + 8.0 * v.fine;
                let inside = ramp(-piece.wall + 0.8, -piece.wall - 0.8, depth + 0.8 * v.fine);
                let content = match piece.content {
                    Content::Stool(hu, gas) => {
                        let bubble = ramp(0.55 - gas, 0.75 - gas, grain + 0.5 * v.fine);
                        hu + 45.0 * grain - bubble * 700.0
                    }
                    Content::Fluid(hu) => hu + 12.0 * grain,
                    Content::Gas => {
                        if v.gravity < top + 6.0 {
                            -930.0
                        } else {
                            30.0
                        }
                    }
                    Content::None => wall - 12.0 + 22.0 * grain,
                };
                wall + inside * (content - wall)
            },
        );
    }
}

/// Ascending, transverse and descending colon.
fn colon(draw: &mut Draw) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let sag = draw.within(0.0, 40.0);
    let path = [
        [-96.0, 26.0, -215.0],
        [-98.0, 18.0, -150.0],
        [-92.0, 2.0, -118.0],
        [-70.0, -50.0, -118.0 - 0.4 * sag],
        [-20.0, -66.0, -118.0 - sag],
        [36.0, -66.0, -112.0 - sag],
        [84.0, -44.0, -84.0],
        [104.0, -6.0, -66.0],
        [110.0, 28.0, -110.0],
        [108.0, 34.0, -160.0],
        [104.0, 26.0, -230.0],
    ];
    let wide = draw.within(0.75, 1.15);
    let radii = [26.0, 25.0, 22.0, 20.0, 19.0, 19.0, 18.0, 16.0, 14.0, 13.0, 13.0].map(|r| r * wide);
    let path: Vec<Point> = path.iter().map(|&p| draw.near(p, [6.0, 6.0, 8.0])).collect();
    for (i, ends) in path.windows(2).enumerate() {
        let content = match draw.count(0, 5) {
            0 => Content::Gas,
            1 => Content::Fluid(draw.within(20.0, 60.0)),
            2 if i > 5 => Content::None,
            _ => Content::Stool(draw.within(15.0, 75.0), draw.within(0.1, 0.5)),
        };
        let wall = draw.within(1.8, 3.2);
        pieces.push(Piece { rod: Rod::new(ends[0], ends[1], [radii[i], radii[i + 1]]), content, wall });
    }
    pieces
}

/// Loops of jejunum and ileum, each a short winding tube somewhere in the middle of the belly.
fn small_bowel(draw: &mut Draw) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let contrast = draw.chance(0.3);
    for _ in 0..draw.count(52, 76) {
        let mut at = draw.near([6.0, -30.0, -158.0], [80.0, 46.0, 70.0]);
        let radius = draw.within(9.0, 14.5);
        let content = match draw.count(0, 9) {
            0..=1 => Content::Fluid(draw.within(15.0, 50.0)),
            2..=4 if contrast => Content::Fluid(draw.within(180.0, 420.0)),
            5 => Content::Gas,
            _ => Content::None,
        };
        for _ in 0..3 {
            let way = draw.direction();
            let to = [at[0] + 30.0 * way[0], at[1] + 24.0 * way[1], at[2] + 18.0 * way[2]];
            pieces.push(Piece { rod: Rod::new(at, to, [radius; 2]), content, wall: draw.within(1.8, 3.4) });
            at = to;
        }
    }
    pieces
}
