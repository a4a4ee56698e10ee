//! Seeded failures: what the guard does with each.

use super::*;
use crate::error::Error;

fn rows() -> Vec<BatchId> {
    vec![
        BatchId { source: "addresses".to_owned(), key: 7, documents: vec!["1861".to_owned()] },
        BatchId { source: "addresses".to_owned(), key: 9, documents: vec!["1900".to_owned(), "1901".to_owned()] },
    ]
}

/// A loss that falls slowly with some noise.
fn loss_at(step: u64) -> f64 {
    4.0 - 0.001 * step as f64 + 0.02 * (((step * 7919) % 13) as f64 / 6.0 - 1.0)
}

/// Feeds healthy losses from `from` up to but not including `to`.
fn healthy(guard: &mut Guard, from: u64, to: u64) {
    for step in from..to {
        assert_eq!(guard.observe(step, loss_at(step), 1.0, rows), Action::Continue, "step {step}");
    }
}

fn small() -> GuardConfig {
    GuardConfig { max_skips: 2, max_rollbacks: 2, ..GuardConfig::default() }
}

#[test]
fn a_healthy_run_is_left_alone() {
    let mut guard = Guard::new(GuardConfig::default());
    healthy(&mut guard, 0, 1000);
    assert_eq!(guard.state().losses.len(), 128);
    assert_eq!(guard.learning_rate_factor(), 1.0);
}

#[test]
fn a_loss_that_is_not_a_number_stops_before_the_update() {
    for loss in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut guard = Guard::new(GuardConfig::default());
        healthy(&mut guard, 0, 40);
        let before = guard.state();
        let Action::Stop(health) = guard.observe(40, loss, 1.0, rows) else { panic!("{loss} did not stop the run") };
        assert_eq!((health.step, &health.batch), (40, &rows()));
        assert_eq!(health.what, format!("the loss is {loss}"));
        assert_eq!(guard.state(), before);
        let message = Error::Health(health).to_string();
        for part in ["step 40", "`addresses#7 (1861)`", "`addresses#9 (1900 and 1 more)`", "peak_learning_rate"] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_stops_even_at_the_first_step() {
    let mut guard = Guard::new(GuardConfig::default());
    let Action::Stop(health) = guard.observe(0, 8.3, f64::INFINITY, rows) else { panic!("the run went on") };
    assert_eq!(health.what, "the gradient norm is inf (the loss is 8.3000)");
    assert_eq!(health.causes[0], "the learning rate or the first warm-up steps are too high");
}

#[test]
fn a_rising_loss_is_named_as_a_cause() {
    let mut guard = Guard::new(GuardConfig::default());
    for step in 0..20 {
        assert_eq!(guard.observe(step, 4.0 + 0.1 * step as f64, 1.0, rows), Action::Continue);
    }
    let Action::Stop(health) = guard.observe(20, f64::NAN, 1.0, rows) else { panic!("the run went on") };
    assert!(health.causes[0].ends_with("over the last 20 steps, and it was rising)"), "{}", health.causes[0]);
}

#[test]
fn one_spike_is_skipped_and_the_run_goes_on() {
    let mut guard = Guard::new(GuardConfig::default());
    healthy(&mut guard, 0, 200);
    let Action::Skip(spike) = guard.observe(200, 9.0, 50.0, rows) else { panic!("the spike was not skipped") };
    assert_eq!((spike.step, spike.loss), (200, 9.0));
    assert!(spike.to_string().starts_with("the loss of 9.0000 is "), "{spike}");
    healthy(&mut guard, 201, 400);
    assert_eq!((guard.state().num_skips, guard.state().num_rollbacks), (1, 0));
}

#[test]
fn spikes_far_apart_are_each_skipped() {
    let mut guard = Guard::new(small());
    healthy(&mut guard, 0, 150);
    let mut step = 150;
    for _ in 0..10 {
        assert!(matches!(guard.observe(step, 9.0, 1.0, rows), Action::Skip(_)), "step {step}");
        healthy(&mut guard, step + 1, step + 128);
        step += 128;
    }
    assert_eq!(guard.state().num_skips, 10);
}

#[test]
fn repeated_spikes_are_skipped_then_roll_back_then_stop() {
    let mut guard = Guard::new(small());
    healthy(&mut guard, 0, 200);
    let checkpoint = guard.state();
    for factor in [0.5, 0.25] {
        assert!(matches!(guard.observe(200, 9.0, 1.0, rows), Action::Skip(_)));
        assert!(matches!(guard.observe(201, 9.0, 1.0, rows), Action::Skip(_)));
        let Action::RollBack { learning_rate_factor, spike } = guard.observe(202, 9.0, 1.0, rows) else {
            panic!("the third spike did not roll back")
        };
        assert_eq!((learning_rate_factor, spike.step), (factor, 202));
        guard.rolled_back_to(checkpoint.clone());
        assert_eq!(guard.learning_rate_factor(), factor);
    }
    assert!(matches!(guard.observe(200, 9.0, 1.0, rows), Action::Skip(_)));
    assert!(matches!(guard.observe(201, 9.0, 1.0, rows), Action::Skip(_)));
    let Action::Stop(health) = guard.observe(202, 9.0, 1.0, rows) else { panic!("the run went on") };
    assert!(health.what.ends_with("after going back 2 times to a lower learning rate"), "{}", health.what);
    assert_eq!(health.batch, rows());
}

#[test]
fn without_skips_and_rollbacks_the_first_spike_stops() {
    let config = GuardConfig { max_skips: 0, max_rollbacks: 0, ..GuardConfig::default() };
    let mut guard = Guard::new(config);
    healthy(&mut guard, 0, 50);
    assert!(matches!(guard.observe(50, 9.0, 1.0, rows), Action::Stop(_)));
}

#[test]
fn going_back_keeps_the_count_but_not_the_losses() {
    let mut guard = Guard::new(GuardConfig { max_skips: 0, ..GuardConfig::default() });
    healthy(&mut guard, 0, 100);
    let checkpoint = guard.state();
    healthy(&mut guard, 100, 150);
    assert!(matches!(guard.observe(150, 9.0, 1.0, rows), Action::RollBack { .. }));
    guard.rolled_back_to(checkpoint.clone());
    let state = guard.state();
    assert_eq!((state.losses, state.num_rollbacks, state.learning_rate_factor), (checkpoint.losses, 1, 0.5));
}

#[test]
fn a_restored_guard_acts_as_if_never_interrupted() {
    let noisy = |step: u64| if step % 90 == 89 { 9.0 } else { loss_at(step) };
    let mut whole = Guard::new(small());
    let mut interrupted = Guard::new(small());
    for step in 0..500 {
        let text = serde_json::to_string(&interrupted.state()).expect("a state is plain data");
        interrupted = Guard::restore(small(), serde_json::from_str(&text).expect("what was written reads back"));
        let actions = [whole.observe(step, noisy(step), 1.0, rows), interrupted.observe(step, noisy(step), 1.0, rows)];
        assert_eq!(actions[0], actions[1], "step {step}");
    }
    assert_eq!(whole.state(), interrupted.state());
    assert!(whole.state().num_skips > 0);
}

#[test]
fn a_collapse_is_told_at_the_same_step_after_a_resume() {
    let config = GuardConfig { collapse_steps: 20, collapse_after_steps: 5, ..GuardConfig::default() };
    let mut guard = Guard::new(config.clone());
    for step in 0..24 {
        assert_eq!(guard.watch(step, &[("blank_share", 1.0)], 1.0), None, "step {step}");
        let text = serde_json::to_string(&guard.state()).expect("a state is plain data");
        guard = Guard::restore(config.clone(), serde_json::from_str(&text).expect("what was written reads back"));
    }
    let told = guard.watch(24, &[("blank_share", 1.0)], 1.0).expect("20 steps in a row");
    assert!(
        told.what.starts_with("the network says only blanks: 100.0 % of the frames, for 20 steps"),
        "{}",
        told.what
    );
    assert_eq!(guard.watch(25, &[("blank_share", 1.0)], 1.0), None);
    let health = crate::error::Health::of_collapse(24, told).to_string();
    assert!(health.starts_with("stopped at step 24 before its update: the network says only blanks"), "{health}");
}

#[test]
fn a_damaged_state_is_taken_with_care() {
    let state = GuardState { losses: vec![f64::NAN, 4.0], learning_rate_factor: f64::NAN, ..GuardState::default() };
    let guard = Guard::restore(GuardConfig::default(), state);
    assert_eq!((guard.state().losses, guard.learning_rate_factor()), (vec![4.0], 1.0));
}
