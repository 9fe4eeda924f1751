//! A twill fabric: two sets of threads, each going over two and under two of the other.

use std::f32::consts::{FRAC_PI_2, TAU};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::noise;
use super::scene::{Camera, Picture, Scene, dot, unit};
use super::shape::{Blob, Curve, smoothstep};

pub(super) const DEFECTS: &[&str] = &["cut", "hole", "stain", "thread"];

/// One piece of fabric under one lamp.
struct Fabric {
    /// Distance of threads.
    period: f32,
    turn: (f32, f32),
    phase: (f32, f32),
    seed: u32,
    light: [f32; 3],
    colours: [[f32; 3]; 2],
}

/// What a ray from above hits.
#[derive(Clone, Copy)]
struct Hit {
    height: f32,
    colour: [f32; 3],
}

enum Defect {
    /// The line, half of its opening, how far the threads give way.
    Cut(Curve, f32, f32),
    Hole(Blob),
    /// Patch, what remains of the light, width of its edge.
    Stain(Blob, [f32; 3], f32),
    /// The line, half of its thickness, its colour, the seed of its twist.
    Thread(Curve, f32, [f32; 3], u32),
}

impl Fabric {
    fn new(rng: &mut ChaCha8Rng) -> Fabric {
        let tone = rng.random_range(0.94..1.06);
        let mut colour = |rgb: [f32; 3]| rgb.map(|c| c * tone * rng.random_range(0.985..1.015));
        let colours = [colour([0.290, 0.255, 0.212]), colour([0.128, 0.138, 0.153])];
        let (azimuth, height) = (rng.random_range(-2.35f32..-2.15), rng.random_range(0.75..0.9));
        Fabric {
            period: rng.random_range(6.85..7.15),
            turn: rng.random_range(-0.03f32..0.03).sin_cos(),
            phase: (rng.random_range(0.0..400.0), rng.random_range(0.0..400.0)),
            seed: rng.random(),
            light: unit([azimuth.cos(), azimuth.sin(), height]),
            colours,
        }
    }

    /// The surface at a place of the picture.
    fn hit(&self, x: f32, y: f32) -> Hit {
        let (sin, cos) = self.turn;
        let sway = |k: u32| 1.6 * noise::value(self.seed ^ k, x / 70.0, y / 70.0);
        let u = (x * cos + y * sin + self.phase.0 + sway(1)) / self.period;
        let v = (y * cos - x * sin + self.phase.1 + sway(2)) / self.period;
        // The upper one first: mostly it hides the other.
        let (warp, weft) = (lift(u, v, 0), lift(v, u, 1));
        let [upper, lower] =
            if warp > weft { [(u, v, 0, warp), (v, u, 1, weft)] } else { [(v, u, 1, weft), (u, v, 0, warp)] };
        let first = self.thread(upper);
        if first.is_some_and(|hit| hit.height > 0.87 + 0.62 * lower.3) {
            return first.unwrap_or(GAP);
        }
        let over = |a: Hit, b: Hit| if a.height > b.height { a } else { b };
        [first, self.thread(lower)].into_iter().flatten().fold(GAP, over)
    }

    /// The thread of one set at `across` its direction and `along` it, in threads, with its lift; `None` between two.
    fn thread(&self, (across, along, set, lift): (f32, f32, u32, f32)) -> Option<Hit> {
        let number = noise::whole(across);
        let index = number as f32;
        let seed = self.seed ^ (0x1000 << set);
        let thick = 1.02 + 0.07 * noise::each(seed, number) + 0.06 * noise::value(seed, along / 3.0, index);
        let drift = 0.16 * noise::value(seed ^ 7, along / 5.0, index);
        let a = ((across - index - 0.5) * 2.0 + drift) / thick;
        if a.abs() >= 1.0 {
            return None;
        }
        // Yarn: fibres wind about the thread.
        let fibre = (TAU * (along * 1.9 + a * 0.55 + noise::each(seed ^ 3, number))).sin();
        let fuzz = noise::value(seed ^ 9, across * 9.0, along * 9.0);
        let height = 0.75 * (1.0 - a * a).sqrt() + 0.62 * lift + 0.05 * fibre + 0.07 * fuzz;
        let shade = 1.0 + 0.07 * noise::each(seed ^ 5, number) + 0.08 * fibre + 0.10 * fuzz;
        Some(Hit { height, colour: self.colours[set as usize].map(|c| c * shade) })
    }
}

/// Between threads.
const GAP: Hit = Hit { height: -1.2, colour: [0.02, 0.018, 0.016] };

/// How far a thread is lifted by those it crosses, from -1 to 1: over two, under two.
fn lift(across: f32, along: f32, set: u32) -> f32 {
    let lift = (FRAC_PI_2 * (along + noise::whole(across) as f32)).cos();
    if set == 0 { lift } else { -lift }
}

impl Defect {
    fn new(kind: &str, rng: &mut ChaCha8Rng) -> Defect {
        let place = (rng.random_range(40.0..216.0), rng.random_range(40.0..216.0));
        let heading = rng.random_range(0.0..TAU);
        // A line is centred on its place, so that it stays in the picture.
        let back = |length: f32| (place.0 - 0.5 * length * heading.cos(), place.1 - 0.5 * length * heading.sin());
        match kind {
            "cut" => {
                let length = rng.random_range(18.0..80.0);
                let line = Curve::walk(back(length), heading, length, 0.012, rng);
                Defect::Cut(line, rng.random_range(0.9..2.8), rng.random_range(0.9..2.2))
            }
            "hole" => {
                let radius = rng.random_range(4.0..13.0);
                Defect::Hole(Blob::new(place, radius, 0.30, rng))
            }
            "stain" => {
                let strength = rng.random_range(0.25..0.75);
                let tint: [f32; 3] = [0.75, 0.95, 1.25].map(|c: f32| c * rng.random_range(0.8..1.2));
                let radius = rng.random_range(9.0..30.0);
                let blob = Blob::new(place, radius, 0.45, rng);
                Defect::Stain(blob, tint.map(|t| (1.0 - strength * t).max(0.08)), rng.random_range(1.5..5.0))
            }
            _ => {
                let length = rng.random_range(35.0..130.0);
                let line = Curve::walk(back(length), heading, length, 0.035, rng);
                let palette = [[0.55, 0.52, 0.46], [0.30, 0.08, 0.06], [0.05, 0.05, 0.06], [0.22, 0.24, 0.30]];
                let colour = palette[rng.random_range(0..palette.len())];
                Defect::Thread(line, rng.random_range(0.8..1.9), colour, rng.random())
            }
        }
    }

    /// The surface with the defect, and whether it is part of it.
    fn hit(&self, fabric: &Fabric, x: f32, y: f32) -> (Hit, bool) {
        match self {
            Defect::Cut(line, half, give) => {
                let Some((distance, t)) = line.near(x, y, 14.0) else { return (fabric.hit(x, y), false) };
                // Widest in the middle; the threads beside it are pushed aside and stand up.
                let open = (4.0 * t * (1.0 - t)).max(0.0).sqrt();
                let (edge, reach) = (half * open, (half + 0.7 * give) * open + 0.5);
                let d = distance.abs();
                let push = give * open * (1.0 - d / 14.0).max(0.0).powi(3);
                let ragged = 0.8 * noise::value(fabric.seed ^ 77, x / 1.3, y / 1.3);
                let mut hit = fabric.hit(x + push * distance.signum() * 0.7, y - push * distance.signum() * 0.7);
                if d < edge + ragged * open {
                    hit = Hit { height: -2.6, colour: [0.012, 0.011, 0.010] };
                } else if d < reach {
                    let lip = 1.0 - (d - edge) / (reach - edge).max(0.1);
                    hit.height += 0.9 * lip * open;
                    hit.colour = hit.colour.map(|c| c * (1.0 + 0.55 * lip * open));
                }
                (hit, d < reach && open > 0.0)
            }
            Defect::Hole(blob) => {
                let depth = blob.depth(x, y);
                let mut hit = fabric.hit(x, y);
                // Loose ends reach into it.
                let ends = 1.6 * noise::value(fabric.seed ^ 78, x / 1.6, y / 1.6);
                if depth + ends > 1.2 {
                    let floor = 0.018 + 0.010 * noise::value(fabric.seed ^ 79, x / 4.0, y / 4.0);
                    hit = Hit { height: -3.0, colour: [floor, 0.92 * floor, 0.85 * floor] };
                } else if depth > -1.5 {
                    let frayed = smoothstep(-1.5, 0.5, depth);
                    hit.height += 0.5 * frayed * noise::value(fabric.seed ^ 80, x, y);
                    hit.colour = hit.colour.map(|c| c * (1.0 + 0.4 * frayed));
                }
                (hit, depth > -1.0)
            }
            Defect::Stain(blob, remains, edge) => {
                let depth = blob.depth(x, y);
                let soaked = smoothstep(-edge, *edge, depth);
                let mut hit = fabric.hit(x, y);
                // A drying stain is darkest at its rim.
                let rim = 1.0 + 0.35 * smoothstep(-edge, 0.0, depth) * (1.0 - smoothstep(0.0, 4.0 + edge, depth));
                for c in 0..3 {
                    hit.colour[c] *= (1.0 - soaked * (1.0 - remains[c]) * rim).max(0.05);
                }
                (hit, soaked > 0.25)
            }
            Defect::Thread(line, half, colour, seed) => {
                let mut hit = fabric.hit(x, y);
                // Light comes from the upper left: the shadow falls to the lower right.
                if let Some((d, _)) = line.near(x - 1.3, y - 1.5, half + 1.5) {
                    let dark = 0.45 * (1.0 - smoothstep(half - 0.5, half + 1.5, d.abs()));
                    hit.colour = hit.colour.map(|c| c * (1.0 - dark));
                }
                if let Some((d, t)) = line.near(x, y, half + 0.2) {
                    let a = (d / half).clamp(-1.0, 1.0);
                    let twist =
                        0.12 * (TAU * (t * 28.0 + 0.4 * a)).sin() + 0.12 * noise::value(*seed, x / 1.2, y / 1.2);
                    let height = 1.6 + 0.28 * half * (1.0 - a * a).sqrt();
                    return (Hit { height, colour: colour.map(|c| c * (1.0 + twist)) }, true);
                }
                (hit, false)
            }
        }
    }
}

/// One picture; good if there is no defect.
pub(super) fn draw(size: usize, defect: Option<&str>, rng: &mut ChaCha8Rng) -> Picture {
    let fabric = Fabric::new(rng);
    let camera = Camera {
        slope: (rng.random_range(-0.12..0.12), rng.random_range(-0.12..0.12)),
        vignette: rng.random_range(0.10..0.22),
        noise: rng.random_range(1.8..2.6),
    };
    let defect = defect.map(|kind| Defect::new(kind, rng));
    let mut scene = Scene::new(size);
    let hits = Scene::fill(scene.side, |x, y| match &defect {
        Some(defect) => defect.hit(&fabric, x, y),
        None => (fabric.hit(x, y), false),
    });
    let height: Vec<f32> = hits.iter().map(|(hit, _)| hit.height).collect();
    for (i, (hit, bad)) in hits.iter().enumerate() {
        let (dx, dy) = Scene::slope(&height, scene.side, i);
        let normal = unit([-1.4 * dx, -1.4 * dy, 1.0]);
        // Deep places see less of the sky.
        let open = 0.35 + 0.65 * smoothstep(-1.0, 1.1, hit.height);
        let light = open * (0.40 + 1.25 * dot(normal, fabric.light).max(0.0));
        scene.colour[i] = hit.colour.map(|c| c * light);
        scene.defect[i] = *bad;
    }
    scene.shoot(&camera, rng)
}
