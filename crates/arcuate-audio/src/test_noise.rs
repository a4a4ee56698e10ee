//! Random numbers for tests: the crate itself draws none.

/// SplitMix64.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn sign(&mut self) -> f64 {
        if self.uniform() < 0.5 { -1.0 } else { 1.0 }
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Gamma with a shape below 1 (Ahrens and Dieter 1974).
    pub(crate) fn gamma(&mut self, shape: f64) -> f64 {
        let b = 1.0 + shape / std::f64::consts::E;
        loop {
            let p = b * self.uniform();
            let u = 1.0 - self.uniform();
            if p <= 1.0 {
                let x = p.powf(1.0 / shape);
                if u <= (-x).exp() {
                    return x;
                }
            } else {
                let x = -((b - p) / shape).ln();
                if u <= x.powf(shape - 1.0) {
                    return x;
                }
            }
        }
    }
}
