//! A hexagon bolt seen from above: head, smooth shank, thread and a blunt point, lying at any angle.

use std::f32::consts::{FRAC_PI_3, TAU};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::noise;
use super::scene::{Camera, Picture, Scene, dot, unit};
use super::shape::{Blob, Curve, smoothstep};

pub(super) const DEFECTS: &[&str] = &["bent_tip", "chip", "scratch", "stain"];

// The part, in 1/256 of the side; `s` runs along the axis from the head's top, `t` across.
const HEAD: f32 = 21.0;
const APOTHEM: f32 = 21.5;
const COLLAR: f32 = 25.0;
const SHANK: f32 = 72.0;
const POINT: f32 = 158.0;
const END: f32 = 172.0;
const RADIUS: f32 = 13.0;
const PITCH: f32 = 7.4;
const DEPTH: f32 = 3.1;

/// One part on the table.
struct Bolt {
    centre: (f32, f32),
    turn: (f32, f32),
    scale: f32,
    /// About its own axis, radians.
    roll: f32,
    seed: u32,
    tone: [f32; 3],
}

enum Defect {
    /// Where it begins, how far the end is off the axis.
    BentTip(f32, f32),
    /// Middle and half length along the axis, middle and half width across, how much is gone.
    Chip(f32, f32, f32, f32, f32),
    /// The line in part coordinates, half its width, brightness.
    Scratch(Curve, f32, f32),
    /// Patch in part coordinates, what remains of the light.
    Stain(Blob, [f32; 3]),
}

impl Bolt {
    fn new(rng: &mut ChaCha8Rng) -> Bolt {
        let tone = rng.random_range(0.93..1.05);
        Bolt {
            centre: (128.0 + rng.random_range(-9.0..9.0), 128.0 + rng.random_range(-9.0..9.0)),
            turn: rng.random_range(0.0..TAU).sin_cos(),
            scale: rng.random_range(0.985..1.015),
            roll: rng.random_range(0.0..TAU),
            seed: rng.random(),
            tone: [0.62, 0.625, 0.635].map(|c: f32| c * tone),
        }
    }

    /// From the picture to the part.
    fn place(&self, x: f32, y: f32) -> (f32, f32) {
        let (dx, dy) = ((x - self.centre.0) / self.scale, (y - self.centre.1) / self.scale);
        let (sin, cos) = self.turn;
        (dx * cos + dy * sin + 0.5 * END, dy * cos - dx * sin)
    }

    /// A direction of the part, in the picture.
    fn direct(&self, (s, t): (f32, f32)) -> (f32, f32) {
        let (sin, cos) = self.turn;
        (s * cos - t * sin, s * sin + t * cos)
    }

    /// Height above the axis; `None` beside the part.
    fn height(&self, s: f32, t: f32, defect: Option<&Defect>) -> Option<f32> {
        let t = t - bend(defect, s);
        match s {
            _ if !(0.0..=END).contains(&s) || t.abs() > if s < COLLAR { 25.0 } else { RADIUS + 1.0 } => None,
            _ if s < HEAD => self.head(s, t),
            _ if s < COLLAR => round(if s < HEAD + 1.0 { 17.0 } else { 23.0 - 0.5 * (s - HEAD) }, t),
            _ if s < SHANK => round(RADIUS - 1.2 + 2.0 * smoothstep(COLLAR + 2.5, COLLAR, s), t),
            _ => self.thread(s, t, defect),
        }
    }

    /// A hexagon with both rims turned off to a cone.
    fn head(&self, s: f32, t: f32) -> Option<f32> {
        let mut z = f32::INFINITY;
        for k in 0..6 {
            let (sin, cos) = (self.roll + k as f32 * FRAC_PI_3).sin_cos();
            if cos > 1e-3 {
                z = z.min((APOTHEM - t * sin) / cos);
            } else if t * sin > APOTHEM {
                return None;
            }
        }
        let corner = APOTHEM * 1.1547;
        let rim = corner - 0.9 - 1.7 * (3.0 - s).max(0.0) - 1.2 * (s - HEAD + 1.6).max(0.0);
        // The hexagon closes at its silhouette, where both faces meet on the axis' level.
        if z < 0.0 { None } else { Some(z.min(round(rim, t)?)) }
    }

    /// A helical ridge; in the view from above it leans by half a pitch from one edge to the other.
    fn thread(&self, s: f32, t: f32, defect: Option<&Defect>) -> Option<f32> {
        let taper = 1.0 - 0.62 * ((s - POINT) / (END - POINT)).max(0.0).powf(1.3);
        let run_in = smoothstep(SHANK, SHANK + 5.0, s);
        let gone = chip(defect, s, t, self.seed);
        let radius_at = |angle: f32| {
            let turns = s / PITCH - angle / TAU + self.roll / TAU;
            let f = turns - noise::whole(turns) as f32;
            let flank = 1.0 - (2.0 * f - 1.0).abs();
            let ridge = (1.35 * flank - 0.1).clamp(0.0, 1.0);
            taper * (RADIUS - DEPTH * (1.0 - ridge * (1.0 - gone)) * run_in - 1.2 * (1.0 - run_in))
        };
        let mut radius = radius_at(0.0);
        for _ in 0..3 {
            radius = radius_at((t / radius).clamp(-1.0, 1.0).asin());
        }
        round(radius, t)
    }
}

fn round(radius: f32, t: f32) -> Option<f32> {
    let squared = radius * radius - t * t;
    (squared > 0.0).then(|| squared.sqrt())
}

/// How far the axis is off at `s`.
fn bend(defect: Option<&Defect>, s: f32) -> f32 {
    match defect {
        Some(Defect::BentTip(from, by)) => by * ((s - from) / (END - from)).max(0.0).powf(1.6),
        _ => 0.0,
    }
}

/// Share of the ridge that is broken away.
fn chip(defect: Option<&Defect>, s: f32, t: f32, seed: u32) -> f32 {
    let Some(Defect::Chip(at, half, across, width, gone)) = defect else { return 0.0 };
    let ragged = 0.18 * noise::cloud(seed ^ 31, s / 3.0, t / 3.0);
    let inside = 1.0 + ragged - ((s - at) / half).abs().max(((t - across) / width).abs());
    gone * smoothstep(0.0, 0.22, inside)
}

impl Defect {
    fn new(kind: &str, rng: &mut ChaCha8Rng) -> Defect {
        let sign = if rng.random() { 1.0 } else { -1.0 };
        match kind {
            "bent_tip" => Defect::BentTip(rng.random_range(118.0..148.0), sign * rng.random_range(3.5..13.0)),
            "chip" => {
                let half = rng.random_range(4.5..12.0);
                let at = rng.random_range(SHANK + 8.0 + half..POINT - half);
                let width = rng.random_range(5.0..11.0);
                Defect::Chip(at, half, rng.random_range(-9.0..9.0), width, rng.random_range(0.7..1.0))
            }
            "scratch" => {
                let length = rng.random_range(9.0..34.0);
                let on_head = rng.random_bool(0.4);
                let start = if on_head {
                    (rng.random_range(3.0..12.0), rng.random_range(-14.0..6.0))
                } else {
                    (rng.random_range(COLLAR..SHANK - 12.0), rng.random_range(-8.0..4.0))
                };
                let heading = rng.random_range(0.1..1.3) * if start.1 > -2.0 && rng.random() { -1.0 } else { 1.0 };
                let line = Curve::walk(start, heading, length, 0.02, rng);
                let bright = if rng.random() { rng.random_range(1.5..2.4) } else { rng.random_range(0.25..0.6) };
                Defect::Scratch(line, rng.random_range(0.55..1.3), bright)
            }
            _ => {
                let s = rng.random_range(6.0..POINT);
                let t = rng.random_range(-8.0..8.0);
                let radius = rng.random_range(4.0..12.0);
                let strength = rng.random_range(0.35..0.85);
                let blob = Blob::new((s, t), radius, 0.5, rng);
                Defect::Stain(blob, [0.55, 0.82, 1.0].map(|c: f32| 1.0 - strength * c))
            }
        }
    }

    /// Colour of the surface at a place of the part, as a factor.
    fn paint(&self, s: f32, t: f32, seed: u32) -> [f32; 3] {
        match self {
            Defect::Scratch(line, half, bright) => match line.near(s, t, half + 0.4) {
                Some((d, at)) => {
                    let fade = smoothstep(0.0, 0.12, at) * smoothstep(1.0, 0.88, at);
                    [1.0 + (bright - 1.0) * (0.35 + 0.65 * fade) * smoothstep(half + 0.4, half - 0.4, d.abs()); 3]
                }
                None => [1.0; 3],
            },
            Defect::Stain(blob, remains) => {
                let soaked = smoothstep(-0.8, 1.2, blob.depth(s, t));
                let grain = 1.0 + 0.25 * noise::value(seed ^ 41, s / 1.1, t / 1.1);
                remains.map(|r| 1.0 - (soaked * (1.0 - r) * grain).min(0.95))
            }
            _ => [1.0; 3],
        }
    }

    /// Whether a place of the part, on it or where it should be, belongs to the defect.
    fn covers(&self, bolt: &Bolt, s: f32, t: f32, on_part: bool) -> bool {
        match self {
            Defect::BentTip(..) => {
                let there = on_part || bolt.height(s, t, None).is_some();
                there && bend(Some(self), s).abs() > 0.75
            }
            Defect::Chip(.., gone) => {
                let there = on_part || bolt.height(s, t, None).is_some();
                there && chip(Some(self), s, t, bolt.seed) > 0.2 * gone
            }
            Defect::Scratch(line, half, _) => on_part && line.near(s, t, *half).is_some(),
            Defect::Stain(blob, _) => on_part && blob.depth(s, t) > 0.0,
        }
    }
}

/// One picture; good if there is no defect.
pub(super) fn draw(size: usize, defect: Option<&str>, rng: &mut ChaCha8Rng) -> Picture {
    let bolt = Bolt::new(rng);
    let camera = Camera {
        slope: (rng.random_range(-0.10..0.10), rng.random_range(-0.10..0.10)),
        vignette: rng.random_range(0.06..0.16),
        noise: rng.random_range(1.5..2.2),
    };
    let ground: f32 = rng.random_range(0.56..0.62);
    let defect = defect.map(|kind| Defect::new(kind, rng));
    let mut scene = Scene::new(size);
    let side = scene.side;
    let heights = Scene::fill(side, |x, y| {
        let (s, t) = bolt.place(x, y);
        bolt.height(s, t, defect.as_ref())
    });
    let solid: Vec<f32> = heights.iter().map(|h| h.unwrap_or(0.0)).collect();
    let shadow = shadow(&heights, side);
    for (i, (x, y)) in Scene::fill(side, |x, y| (x, y)).into_iter().enumerate() {
        let (s, t) = bolt.place(x, y);
        scene.defect[i] = defect.as_ref().is_some_and(|d| d.covers(&bolt, s, t, heights[i].is_some()));
        if heights[i].is_none() {
            let grain = 1.0 + 0.012 * noise::value(bolt.seed ^ 11, x / 1.7, y / 1.7);
            scene.colour[i] = [1.0, 0.995, 0.98].map(|c| c * ground * grain * shadow[i]);
            continue;
        }
        let (dx, dy) = Scene::slope(&solid, side, i);
        // Turning marks run about the axis: the normal trembles along it.
        let marks = 0.05 * noise::value(bolt.seed ^ 12, s * 1.9, t * 0.12)
            + 0.03 * noise::value(bolt.seed ^ 13, s * 0.7, t * 0.7);
        let tremble = bolt.direct((marks, 0.0));
        let mut colour = metal(unit([tremble.0 - dx, tremble.1 - dy, 1.0])).map(|c| c * (1.0 + 0.6 * marks));
        let paint = defect.as_ref().map_or([1.0; 3], |d| d.paint(s, t, bolt.seed));
        for c in 0..3 {
            colour[c] *= bolt.tone[c] * paint[c];
        }
        scene.colour[i] = colour;
    }
    scene.shoot(&camera, rng)
}

/// Light from a surface of plated steel: a large lamp at the upper left, a weak one opposite, a bright table around.
fn metal(normal: [f32; 3]) -> [f32; 3] {
    let facing = 2.0 * normal[2];
    let mirror = [facing * normal[0], facing * normal[1], facing * normal[2] - 1.0];
    let lamp = dot(mirror, [-0.46, -0.56, 0.69]).max(0.0);
    let other = dot(mirror, [0.62, 0.42, 0.66]).max(0.0);
    let table = smoothstep(0.1, -0.7, mirror[2]);
    let diffuse = dot(normal, [-0.46, -0.56, 0.69]).max(0.0);
    let light = 0.045 + 0.30 * diffuse + 1.45 * lamp.powi(12) + 0.40 * other.powi(8) + 0.30 * table;
    [light, light * 1.002, light * 1.01]
}

/// Share of the light that reaches the ground: a contact shadow that falls to the lower right.
fn shadow(heights: &[Option<f32>], side: usize) -> Vec<f32> {
    let unit = 256.0 / side as f32;
    let (right, down) = ((4.5 / unit) as usize, (5.5 / unit) as usize);
    let mut cast: Vec<f32> = (0..side * side)
        .map(|i| {
            let (y, x) = (i / side, i % side);
            let from = y.checked_sub(down).zip(x.checked_sub(right));
            from.map_or(0.0, |(y, x)| if heights[y * side + x].is_some() { 1.0 } else { 0.0 })
        })
        .collect();
    let radius = (3.0 / unit) as usize;
    for _ in 0..2 {
        cast = smear(&smear(&cast, side, radius), side, radius);
    }
    cast.iter().map(|c| 1.0 - 0.5 * c).collect()
}

/// A running mean along rows, transposed: twice it is a blur both ways.
fn smear(values: &[f32], side: usize, radius: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (y, row) in values.chunks_exact(side).enumerate() {
        let mut sum: f32 = row.iter().take(radius).sum();
        for x in 0..side {
            sum += row.get(x + radius).copied().unwrap_or(0.0);
            out[x * side + y] = sum / (2 * radius + 1) as f32;
            if x >= radius {
                sum -= row[x - radius];
            }
        }
    }
    out
}
