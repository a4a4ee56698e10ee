//! The feed-forward layer of a transformer in one: projection up, activation, projection down, and what is added to it.
//!
//! # What it computes
//! `y = f(x U + a) D + b + r` with GELU, SiLU or ReLU for f, or gated `y = (silu(x G + g) * (x U + a)) D + b + r` (Shazeer 2020), with optional biases
//! and an optional residual stream r.
//!
//! Rows pass in chunks that stay in the cache, so the inner activations never exist whole. The backward pass reads the
//! input and what went into the activation, in bf16 where products round to it anyway, and computes the rest again.
// R rows (all leading dimensions), C channels, I inner channels

use std::ops::Range;

use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::Precision;
use crate::activation::{Form, activate_plain, swiglu_plain};
use crate::cpu::bf16::{Kept, Writer};
use crate::cpu::gemm::{Factor, How, Shared, View, buffer, matmul, matmul_new, matmul_then};
use crate::cpu::sums::{add, add_in_order, column_sums};
use crate::linear::{Layout, linear_plain};
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, optional, tensor};

/// The weight of a linear map with its optional bias.
#[derive(Debug, Clone)]
pub struct Map {
    /// `[in, out]` or `[out, in]`.
    pub weight: Tensor<2>,
    /// `[out]`
    pub bias: Option<Tensor<1>>,
}

/// The most rows of a chunk: as many as a product takes along k at once, so that the products of weight gradients add
/// up no more often than without chunks.
const ROWS: usize = 768;
/// Numbers that an activation takes at a time on the way back.
const PIECE: usize = 256;

fn chunks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let len = rows.div_ceil(rows.div_ceil(ROWS).max(1)).max(1);
    (0..rows).step_by(len).map(move |from| from..rows.min(from + len))
}

/// `N` maps up: one, or the gate and the other.
#[derive(Debug, Clone)]
struct FeedForward<const N: usize> {
    form: Form,
    layout: Layout,
    precision: Precision,
}

/// A weight, and a bias that is empty where there is none.
type Pair = [FlexTensor; 2];

/// A gradient that chunks added up; no rows leave nothing.
fn summed(weight: &FlexTensor, sum: Vec<f32>) -> FlexTensor {
    let sum = if sum.is_empty() { buffer(numbers(weight).len()) } else { sum };
    tensor(&dims(weight), sum)
}

/// The shape of the input, the input, what went into the activation, all maps.
type Saved<const N: usize> = (Vec<usize>, Kept, [Kept; N], [Pair; N], Pair);

impl<const N: usize> FeedForward<N> {
    /// `keep` gets what goes into the activation.
    fn product(
        &self,
        x: &FlexTensor,
        up: &[Pair; N],
        down: &Pair,
        residual: &FlexTensor,
        keep: Option<&mut [Kept; N]>,
    ) -> FlexTensor {
        let (mut shape, how) = (dims(x), How::all(self.precision));
        let ((k, inner), (_, n)) = (self.layout.sizes(&up[0][0]), self.layout.sizes(&down[0]));
        let rows: usize = shape[..shape.len() - 1].iter().product();
        let keep: Option<[Writer; N]> = keep.map(|kept| kept.each_mut().map(Kept::writer));
        let mut out = buffer(rows * n);
        for chunk in chunks(rows) {
            let x = View::rows(&numbers(x)[chunk.start * k..], k);
            let mut hidden: Vec<f32> = Vec::new();
            for (which, [weight, bias]) in up.iter().enumerate() {
                let (gate, bias) = (std::mem::take(&mut hidden), numbers(bias));
                let finish = |i: usize, first: usize, row: &mut [f32]| {
                    if !bias.is_empty() {
                        add(row, &bias[first..]);
                    }
                    if let Some(keep) = &keep {
                        // SAFETY: every place belongs to one piece of one row; the numbers outlive the product.
                        #[allow(unsafe_code)]
                        unsafe {
                            keep[which].write((chunk.start + i) * inner + first, row);
                        }
                    }
                    if which > 0 {
                        self.form.gate(&gate[i * inner + first..], row);
                    } else if N == 1 {
                        self.form.in_place(row);
                    }
                };
                hidden = matmul_new([chunk.len(), inner, k], x, self.layout.view(weight), how, finish);
            }
            let (bias, residual) = (numbers(&down[1]), numbers(residual));
            let finish = |i: usize, first: usize, row: &mut [f32]| {
                if !bias.is_empty() {
                    add(row, &bias[first..]);
                }
                if !residual.is_empty() {
                    add(row, &residual[(chunk.start + i) * n + first..]);
                }
            };
            let hidden = View::rows(&hidden, inner);
            let out = &mut out[chunk.start * n..];
            matmul_then([chunk.len(), n, inner], hidden, self.layout.view(&down[0]), out, n, how, finish);
        }
        if let Some(last) = shape.last_mut() {
            *last = n;
        }
        tensor(&shape, out)
    }

    /// Gradients in the order of the inputs.
    fn gradients(&self, saved: Saved<N>, grad: &FlexTensor, needs: &[bool]) -> Vec<Option<FlexTensor>> {
        let (shape, x, kept, up, down) = saved;
        let layout = self.layout;
        let ((k, inner), (_, n)) = (layout.sizes(&up[0][0]), layout.sizes(&down[0]));
        let rows: usize = shape[..shape.len() - 1].iter().product();
        let (needs_input, needs_down) = (needs[0], [needs[2 * N + 1], needs[2 * N + 2]]);
        let needs_up: [[bool; 2]; N] = std::array::from_fn(|which| [needs[2 * which + 1], needs[2 * which + 2]]);
        let mut d_x = buffer(if needs_input { rows * k } else { 0 });
        let mut d_up: [Vec<f32>; N] = std::array::from_fn(|_| Vec::new());
        let mut d_down = Vec::new();
        let mut bias_parts: [Vec<Vec<f32>>; N] = std::array::from_fn(|_| Vec::new());
        let d_bias = needs_down[1].then(|| tensor(&[n], column_sums(numbers(grad), n)));
        let grad = Kept::new(grad.clone(), self.precision);
        let mut d_gate = buffer(if N == 2 { rows.min(ROWS) * inner } else { 0 });
        let mut values = Kept::room(rows.min(ROWS) * inner, self.precision);
        for chunk in chunks(rows) {
            let (all, len) = (How::all(self.precision), chunk.len());
            let grad = grad.rows(chunk.start, n);
            let gates = Shared::new(&mut d_gate);
            let writer = values.writer();
            let finish = |i: usize, first: usize, row: &mut [f32]| {
                let mut memory = [[0f32; PIECE]; 3];
                for (piece, row) in row.chunks_mut(PIECE).enumerate() {
                    let at = i * inner + first + piece * PIECE;
                    let [value, gate, d_value] = memory.each_mut().map(|x| &mut x[..row.len()]);
                    kept[N - 1].read(chunk.start * inner + at, value);
                    if N == 1 {
                        self.form.again(value, row);
                    } else {
                        kept[0].read(chunk.start * inner + at, gate);
                        d_value.copy_from_slice(row);
                        // SAFETY: every place belongs to one piece of one row.
                        #[allow(unsafe_code)]
                        let d_gate = unsafe { gates.slice(at, row.len()) };
                        self.form.gated_backward(gate, value, d_value, d_gate, row);
                        self.form.gate(gate, value);
                    }
                    // SAFETY: every place belongs to one piece of one row; the numbers outlive the product.
                    #[allow(unsafe_code)]
                    unsafe {
                        writer.write(at, value);
                    }
                }
            };
            let d_hidden = matmul_new([len, inner, n], grad, layout.view(&down[0]).t(), all, finish);
            let weight = |x: Factor, y: Factor, [inputs, outputs]: [usize; 2], out: &mut Vec<f32>| {
                let (rows, cols, a, b) = match layout {
                    Layout::OutIn => (outputs, inputs, y.t(), x),
                    Layout::InOut => (inputs, outputs, x.t(), y),
                };
                if out.is_empty() {
                    *out = matmul_new([rows, cols, len], a, b, all, |_, _, _| {});
                } else {
                    matmul([rows, cols, len], a, b, out, cols, all.add());
                }
            };
            if needs_down[0] {
                weight(values.rows(0, inner), grad, [inner, n], &mut d_down);
            }
            for which in 0..N {
                let hidden = if which + 1 == N { &d_hidden[..] } else { &d_gate[..len * inner] };
                if needs_up[which][0] {
                    let hidden = View::rows(hidden, inner).into();
                    weight(x.rows(chunk.start, k), hidden, [k, inner], &mut d_up[which]);
                }
                if needs_up[which][1] {
                    bias_parts[which].push(column_sums(hidden, inner));
                }
                if needs_input {
                    let (how, out) = (if which == 0 { all } else { all.add() }, &mut d_x[chunk.start * k..]);
                    matmul([len, k, inner], View::rows(hidden, inner), layout.view(&up[which][0]).t(), out, k, how);
                }
            }
        }
        let mut gradients = vec![needs_input.then(|| tensor(&shape, d_x))];
        for (((d_weight, parts), needs), [weight, _]) in d_up.into_iter().zip(bias_parts).zip(needs_up).zip(&up) {
            gradients.push(needs[0].then(|| summed(weight, d_weight)));
            gradients.push(needs[1].then(|| tensor(&[inner], add_in_order(parts, inner))));
        }
        gradients.push(needs_down[0].then(|| summed(&down[0], d_down)));
        gradients.push(d_bias);
        gradients
    }

    fn run(&self, x: FlexTensor, up: [Pair; N], down: Pair, residual: &FlexTensor) -> (FlexTensor, Saved<N>) {
        let (_, inner) = self.layout.sizes(&up[0][0]);
        let shape = dims(&x);
        let rows: usize = shape[..shape.len() - 1].iter().product();
        let mut kept = std::array::from_fn(|_| Kept::room(rows * inner, self.precision));
        let out = self.product(&x, &up, &down, residual, Some(&mut kept));
        (out, (shape, Kept::new(x, self.precision), kept, up, down))
    }
}

impl Kernel<6> for FeedForward<1> {
    type Saved = Saved<1>;

    fn forward(&self, [x, up, up_bias, down, down_bias, residual]: [FlexTensor; 6]) -> (FlexTensor, Self::Saved) {
        self.run(x, [[up, up_bias]], [down, down_bias], &residual)
    }

    fn value(&self, [x, up, up_bias, down, down_bias, residual]: [FlexTensor; 6]) -> FlexTensor {
        self.product(&x, &[[up, up_bias]], &[down, down_bias], &residual, None)
    }

    fn backward(&self, saved: Self::Saved, grad: FlexTensor, needs: [bool; 6]) -> [Option<FlexTensor>; 6] {
        let mut gradients = self.gradients(saved, &grad, &needs).into_iter();
        std::array::from_fn(|i| if i < 5 { gradients.next().flatten() } else { needs[5].then(|| grad.clone()) })
    }
}

impl Kernel<8> for FeedForward<2> {
    type Saved = Saved<2>;

    fn forward(
        &self,
        [x, gate, gate_bias, up, up_bias, down, down_bias, residual]: [FlexTensor; 8],
    ) -> (FlexTensor, Self::Saved) {
        self.run(x, [[gate, gate_bias], [up, up_bias]], [down, down_bias], &residual)
    }

    fn value(&self, [x, gate, gate_bias, up, up_bias, down, down_bias, residual]: [FlexTensor; 8]) -> FlexTensor {
        self.product(&x, &[[gate, gate_bias], [up, up_bias]], &[down, down_bias], &residual, None)
    }

    fn backward(&self, saved: Self::Saved, grad: FlexTensor, needs: [bool; 8]) -> [Option<FlexTensor>; 8] {
        let mut gradients = self.gradients(saved, &grad, &needs).into_iter();
        std::array::from_fn(|i| if i < 7 { gradients.next().flatten() } else { needs[7].then(|| grad.clone()) })
    }
}

fn check<const D: usize>(x: &Tensor<D>, up: &[&Map], down: &Map, residual: Option<&Tensor<D>>, layout: Layout) {
    let sizes = |map: &Map| match (layout, map.weight.dims()) {
        (Layout::InOut, [inputs, outputs]) | (Layout::OutIn, [outputs, inputs]) => [inputs, outputs],
    };
    let [inner, outputs] = sizes(down);
    let fits = |map: &Map| map.bias.as_ref().is_none_or(|bias| bias.dims()[0] == sizes(map)[1]);
    assert!(
        up.iter().all(|map| sizes(map) == [x.dims()[D - 1], inner] && fits(map))
            && fits(down)
            && residual.is_none_or(|r| r.dims()[D - 1] == outputs && r.dims()[..D - 1] == x.dims()[..D - 1]),
        "feed_forward: {:?}, {:?} and {:?} do not fit",
        x.dims(),
        up[0].weight.dims(),
        down.weight.dims()
    );
}

/// `x` `[.., C]` through `up` `[C, I]`, a function of every element and `down` `[I, C]`, plus an optional residual `[.., C]`.
///
/// # Panics
/// When the sizes do not fit; models check their shapes when they are built or loaded.
pub fn feed_forward<const D: usize>(
    x: Tensor<D>,
    up: Map,
    down: Map,
    residual: Option<Tensor<D>>,
    form: impl Into<Form>,
    layout: Layout,
) -> Tensor<D> {
    check(&x, &[&up], &down, residual.as_ref(), layout);
    let form = form.into();
    let kernel = FeedForward::<1> { form, layout, precision: Precision::current() };
    let (a, b) = (up.clone(), down.clone());
    let inputs = [
        cpu_tensor(x.clone()),
        cpu_tensor(a.weight),
        optional(a.bias),
        cpu_tensor(b.weight),
        optional(b.bias),
        optional(residual.clone()),
    ];
    apply::<_, 6, D>(kernel, inputs).unwrap_or_else(|| feed_forward_plain(x, up, down, residual, form, layout))
}

/// The plain composition of `feed_forward`.
pub fn feed_forward_plain<const D: usize>(
    x: Tensor<D>,
    up: Map,
    down: Map,
    residual: Option<Tensor<D>>,
    form: impl Into<Form>,
    layout: Layout,
) -> Tensor<D> {
    let hidden = activate_plain(linear_plain(x, up.weight, up.bias, layout), form.into());
    let out = linear_plain(hidden, down.weight, down.bias, layout);
    residual.map_or(out.clone(), |residual| out + residual)
}

/// `x` `[.., C]` through `up` `[C, I]` times SiLU of `gate` `[C, I]`, then `down` `[I, C]`, plus an optional residual.
///
/// # Panics
/// When the sizes do not fit; models check their shapes when they are built or loaded.
pub fn feed_forward_gated<const D: usize>(
    x: Tensor<D>,
    gate: Map,
    up: Map,
    down: Map,
    residual: Option<Tensor<D>>,
    layout: Layout,
) -> Tensor<D> {
    check(&x, &[&gate, &up], &down, residual.as_ref(), layout);
    let kernel = FeedForward::<2> { form: Form::Silu, layout, precision: Precision::current() };
    let (a, b, c) = (gate.clone(), up.clone(), down.clone());
    let inputs = [
        cpu_tensor(x.clone()),
        cpu_tensor(a.weight),
        optional(a.bias),
        cpu_tensor(b.weight),
        optional(b.bias),
        cpu_tensor(c.weight),
        optional(c.bias),
        optional(residual.clone()),
    ];
    apply::<_, 8, D>(kernel, inputs).unwrap_or_else(|| feed_forward_gated_plain(x, gate, up, down, residual, layout))
}

/// The plain composition of `feed_forward_gated`.
pub fn feed_forward_gated_plain<const D: usize>(
    x: Tensor<D>,
    gate: Map,
    up: Map,
    down: Map,
    residual: Option<Tensor<D>>,
    layout: Layout,
) -> Tensor<D> {
    let gate = linear_plain(x.clone(), gate.weight, gate.bias, layout);
    let hidden = swiglu_plain(gate, linear_plain(x, up.weight, up.bias, layout));
    let out = linear_plain(hidden, down.weight, down.bias, layout);
    residual.map_or(out.clone(), |residual| out + residual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Gelu;
    use crate::gradcheck::{agrees, distance, on_threads, random, values};
    use burn::tensor::Device;

    /// Rows, channels, inner channels, outputs.
    const SIZES: [[usize; 4]; 5] = [[1, 1, 1, 1], [3, 5, 7, 5], [130, 17, 33, 40], [1, 64, 300, 64], [1600, 9, 21, 9]];

    fn map(inputs: usize, outputs: usize, layout: Layout, seed: u64) -> Map {
        let shape = if layout == Layout::OutIn { [outputs, inputs] } else { [inputs, outputs] };
        Map { weight: random(shape, seed), bias: Some(random([outputs], seed + 1)) }
    }

    fn on_tape(map: &Map, like: &Tensor<2>) -> Map {
        Map {
            weight: Tensor::from_data(map.weight.to_data(), &like.device()),
            bias: map.bias.clone().map(|bias| Tensor::from_data(bias.to_data(), &like.device())),
        }
    }

    #[test]
    fn agrees_with_plain_composition_for_odd_sizes() {
        for [rows, c, inner, n] in SIZES {
            for layout in [Layout::OutIn, Layout::InOut] {
                let (up, down) = (map(c, inner, layout, 1), map(inner, n, layout, 3));
                for form in [Form::GeluErf, Form::GeluTanh, Form::Silu, Form::Relu] {
                    let parts = |x: &Tensor<2>, weight: Tensor<2>, bias: Tensor<1>| {
                        (Map { weight, bias: Some(bias) }, on_tape(&down, x))
                    };
                    agrees(
                        (random([rows, c], 5), up.weight.clone(), random([inner], 6)),
                        |(x, w, b)| {
                            let (up, down) = parts(&x, w, b);
                            feed_forward(x, up, down, None, form, layout)
                        },
                        |(x, w, b)| {
                            let (up, down) = parts(&x, w, b);
                            feed_forward_plain(x, up, down, None, form, layout)
                        },
                    );
                }
                let parts = |w: Tensor<2>, bias: Tensor<1>| (on_tape(&up, &w), Map { weight: w, bias: Some(bias) });
                agrees(
                    (random([rows, n], 5), down.weight.clone(), random([n], 6)),
                    |(r, w, b)| {
                        let (up, down) = parts(w, b);
                        let x = Tensor::from_data(random([rows, c], 7).into_data(), &r.device());
                        feed_forward(x, up, down, Some(r), Gelu::Erf, layout)
                    },
                    |(r, w, b)| {
                        let (up, down) = parts(w, b);
                        let x = Tensor::from_data(random([rows, c], 7).into_data(), &r.device());
                        feed_forward_plain(x, up, down, Some(r), Gelu::Erf, layout)
                    },
                );
            }
        }
    }

    #[test]
    fn gated_agrees_with_plain_composition_for_odd_sizes() {
        for [rows, c, inner, n] in SIZES {
            for layout in [Layout::OutIn, Layout::InOut] {
                let [gate, up, down] = [
                    map(c, inner, layout, 1),
                    map(c, inner, layout, 3),
                    Map { bias: None, ..map(inner, n, layout, 5) },
                ];
                agrees(
                    (random([rows, c], 7), gate.weight.clone(), up.weight.clone()),
                    |(x, g, u)| {
                        let (gate, up) = (Map { weight: g, bias: None }, Map { weight: u, bias: None });
                        let down = on_tape(&down, &x);
                        feed_forward_gated(x, gate, up, down, None, layout)
                    },
                    |(x, g, u)| {
                        let (gate, up) = (Map { weight: g, bias: None }, Map { weight: u, bias: None });
                        let down = on_tape(&down, &x);
                        feed_forward_gated_plain(x, gate, up, down, None, layout)
                    },
                );
                let maps = |x: &Tensor<2>, a: Tensor<1>, b: Tensor<1>| {
                    let [gate, up, down] = [&gate, &up, &down].map(|map| on_tape(map, x));
                    (Map { bias: Some(a), ..gate }, Map { bias: Some(b), ..up }, down)
                };
                agrees(
                    (random([rows, c], 7), random([inner], 8), random([inner], 9)),
                    |(x, a, b)| {
                        let (gate, up, down) = maps(&x, a, b);
                        let r = Tensor::ones([rows, n], &x.device());
                        feed_forward_gated(x, gate, up, down, Some(r), layout)
                    },
                    |(x, a, b)| {
                        let (gate, up, down) = maps(&x, a, b);
                        let r = Tensor::ones([rows, n], &x.device());
                        feed_forward_gated_plain(x, gate, up, down, Some(r), layout)
                    },
                );
            }
        }
    }

    #[test]
    fn no_rows_give_gradients_of_zero() {
        let (up, down) = (map(4, 6, Layout::OutIn, 1), map(6, 4, Layout::OutIn, 3));
        agrees(
            (random([0, 4], 5), up.weight.clone(), random([6], 6)),
            |(x, w, b)| {
                let down = on_tape(&down, &x);
                feed_forward(x, Map { weight: w, bias: Some(b) }, down, None, Gelu::Erf, Layout::OutIn)
            },
            |(x, w, b)| {
                let down = on_tape(&down, &x);
                feed_forward_plain(x, Map { weight: w, bias: Some(b) }, down, None, Gelu::Erf, Layout::OutIn)
            },
        );
    }

    #[test]
    fn non_contiguous_input_is_read_correctly() {
        let (up, down) = (map(3, 6, Layout::InOut, 1), map(6, 3, Layout::InOut, 3));
        agrees(
            (random([3, 5], 5), up.weight.clone(), random([3, 5], 6)),
            |(x, w, r)| {
                let (up, down) = (Map { weight: w, bias: None }, on_tape(&down, &x));
                feed_forward(x.transpose(), up, down, Some(r.transpose()), Gelu::Tanh, Layout::InOut)
            },
            |(x, w, r)| {
                let (up, down) = (Map { weight: w, bias: None }, on_tape(&down, &x));
                feed_forward_plain(x.transpose(), up, down, Some(r.transpose()), Gelu::Tanh, Layout::InOut)
            },
        );
    }

    /// Value and gradients of input, weights and biases of a gated layer.
    fn gradients(precision: Precision) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let on = |x: Tensor<2>| Tensor::<2>::from_data(x.into_data(), &device).require_grad();
        let bias = |n, seed| Tensor::<1>::from_data(random([n], seed).into_data(), &device).require_grad();
        let (rows, c, inner) = (800, 48, 70);
        let x = on(random([rows, c], 1));
        let [gate, up] =
            [2, 4].map(|seed| Map { weight: on(random([inner, c], seed) * 0.2), bias: Some(bias(inner, seed + 1)) });
        let down = Map { weight: on(random([c, inner], 6) * 0.2), bias: Some(bias(c, 7)) };
        let maps = [gate.clone(), up.clone(), down.clone()];
        let y = precision.scope(|| feed_forward_gated(x.clone(), gate, up, down, Some(x.clone()), Layout::OutIn));
        let direction = Tensor::<2>::from_data(random([rows, c], 9).into_data(), &device);
        let grads = (y.clone() * direction).sum().backward();
        let mut all = vec![values(y), x.grad(&grads).map(values).unwrap_or_default()];
        for Map { weight, bias } in maps {
            all.push(weight.grad(&grads).map(values).unwrap_or_default());
            all.push(bias.and_then(|bias| bias.grad(&grads)).map(values).unwrap_or_default());
        }
        all
    }

    #[test]
    fn number_of_threads_changes_no_bit() {
        for precision in [Precision::F32, Precision::Bf16] {
            assert_eq!(on_threads(1, || gradients(precision)), on_threads(2, || gradients(precision)));
        }
    }

    #[test]
    fn bf16_is_near_f32() {
        for (i, (a, b)) in gradients(Precision::Bf16).iter().zip(&gradients(Precision::F32)).enumerate() {
            let apart = distance(a, b);
            // The gradient of the last bias is a sum of what both are given.
            assert!(apart < 1e-2 && (apart > 0.0) == (i != 7), "part {i} differs by {apart:e}");
        }
    }
}
