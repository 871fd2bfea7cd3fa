//! The conformance suite: what every bus must do, alone and under the real driver.
//!
//! Two kinds of tests. `rules` asks the `Bus` trait for the durability rules of its documentation. The others run a
//! [`node::Node`], the real driver over the bus, and are named by the numbers of the job-bus requirements that
//! docs/buses.md lists (`c14_...`). Each test is written once, generic over a [`harness::Harness`], and runs on each
//! bus that is able to run it; the lists below say which. A new bus brings a harness and one `mod` at the end.

#![cfg(test)]

mod backpressure;
mod children;
mod content;
mod delivery;
mod dir_log;
mod harness;
mod lifecycle;
mod many;
mod node;
mod priority;
mod reply;
mod rules;
mod sim_log;
mod table;
mod words;

/// Makes a test of each generic function, for one harness.
macro_rules! tests {
    ($harness:ty: $($theme:ident: $($name:ident)*;)*) => {
        $($(#[test] fn $name() { crate::$theme::$name::<$harness>(); })*)*
    };
}

/// What asks nothing of a bus but the trait.
macro_rules! every_bus {
    ($harness:ty) => {
        tests! { $harness:
            rules:
                rule2_tickets_become_durable_in_the_order_of_their_appends
                rule3_a_job_arrives_once_and_after_its_submit_is_durable
                rule4_an_outcome_is_told_once_and_after_it_is_durable
                rule6_written_comes_before_durable
                rule7_a_setting_is_told_once_and_after_it_is_durable
                a_closed_bus_takes_no_more;
            delivery:
                c01_every_job_is_processed_once_and_every_caller_gets_its_own_result
                c02_a_dead_worker_loses_nothing_and_what_it_finished_is_not_run_again
                c05_a_settle_whose_answer_was_lost_is_a_duplicate
                c05_a_batch_that_did_not_reach_its_worker_goes_to_the_next_with_the_same_job_id
                c05_a_poll_repeated_after_a_lost_answer_gets_the_same_batch
                c05_a_poll_whose_worker_sends_no_more_takes_no_job
                c06_a_late_result_counts_while_no_other_worker_has_the_job
                c06_a_late_result_changes_nothing_once_another_worker_has_the_job
                c07_a_heartbeat_keeps_a_long_job_alive_and_silence_loses_it
                c08_a_job_that_hangs_holds_up_no_other_and_alone_runs_again
                c09_a_worker_that_lost_its_lease_cannot_touch_the_next_one;
            priority:
                c14_nothing_slow_starts_while_realtime_waits
                c15_with_every_slot_busy_realtime_has_the_next_one
                c15_a_reserved_slot_waits_for_realtime_and_serves_it_at_once
                c16_slow_gets_its_share_and_with_none_it_waits
                c17_empty_lanes_add_no_delay_to_the_others;
            reply:
                c20_a_caller_that_may_be_gone_is_answered_in_time
                c20_a_wait_that_ends_is_answered_with_the_job_as_it_is_and_the_job_goes_on
                c22_a_result_whose_caller_left_is_kept_for_its_time_and_then_goes;
            content:
                c24_batches_stay_within_their_limits_and_may_meet_them_exactly
                c24_any_bytes_come_back_as_they_went
                c24_a_job_larger_than_a_batch_travels_alone;
            lifecycle:
                c36_a_stopping_node_takes_nothing_new_and_lets_leased_jobs_settle
                c37_a_stopping_worker_releases_and_others_start_at_once
                c37_when_the_grace_ends_callers_get_their_job_as_it_is
                c40_a_clash_names_what_differs
                the_dead_are_counted_until_they_are_forgotten
                c40_the_same_submit_twice_is_one_job
                c40_a_repeat_that_meets_its_first_in_flight_shares_its_fate
                c40_a_key_is_forgotten_when_its_time_is_over
                children_come_with_their_parents_outcome
                children_inherit_the_trace_of_their_parent
                a_job_whose_children_find_no_room_stays_leased
                a_child_takes_its_parents_place_in_a_full_queue
                of_many_callers_at_once_only_those_with_a_place_submit
                processors_that_come_at_once_stay_within_their_limit
                a_poll_that_settles_what_is_unknown_takes_one_batch;
            children:
                a_parent_that_comes_again_has_other_children
                a_childs_id_that_is_taken_is_made_anew;
            many:
                each_of_many_is_recognised_on_its_own
                one_and_one_of_many_that_meet_in_flight_are_one_job
                a_limit_in_the_middle_of_many_refuses_the_rest
                many_that_are_patient_wait_for_places
                many_that_are_patient_are_answered_in_the_end
                many_that_wait_are_answered_when_all_are_done
                many_whose_time_is_up_are_answered_as_they_are
                many_that_wait_through_a_stop_wait_for_leased_jobs_only
                more_jobs_than_one_append_takes_keep_their_order;
        }
    };
}

/// What also lets the process end.
macro_rules! buses_that_outlive_their_process {
    ($harness:ty) => {
        tests! { $harness:
            rules:
                rule3_after_a_restart_every_unsettled_job_arrives_again_in_order_before_ready
                rule4_after_a_restart_a_finished_job_stays_finished
                rule6_what_was_written_survives_the_end_of_the_process
                rule7_after_a_restart_the_latest_of_each_setting_is_told_first;
            delivery:
                c02_a_dead_node_loses_nothing_and_what_was_finished_is_not_run_again
                c02_a_batch_on_its_way_is_back_in_its_lane_at_once_when_the_node_dies
                c05_a_poll_repeated_after_a_restart_gets_the_same_batch
                c08_after_a_restart_only_the_job_that_hangs_runs_again;
            reply:
                c22_a_result_is_kept_over_a_restart;
            content:
                c24_any_bytes_come_back_after_a_restart;
            lifecycle:
                c36_after_a_graceful_stop_nothing_that_finished_runs_again
                c37_a_second_signal_ends_at_once_and_loses_nothing
                c37_a_worker_inside_the_process_ends_with_it_and_its_jobs_start_at_once
                a_pause_stays_a_pause_when_the_clock_is_set_back
                the_dead_are_counted_after_a_restart
                c40_the_same_submit_after_a_restart_is_the_same_job;
            children:
                a_childs_id_that_is_taken_is_made_anew_after_a_restart;
            many:
                accepted_of_many_is_there_after_a_restart;
        }
    };
}

/// What also stops, fails and loses the I/O.
macro_rules! buses_on_a_faulty_medium {
    ($harness:ty) => {
        tests! { $harness:
            rules:
                rule1_durable_comes_only_after_the_sync
                rule1_an_append_is_there_wholly_or_not_at_all
                rule1_what_was_durable_survives_a_power_cut
                rule2_what_found_no_room_is_not_there_now_or_after_a_restart
                rule3_no_job_arrives_before_its_sync
                rule4_no_outcome_is_told_before_its_sync
                rule5_after_a_failed_sync_nothing_is_durable
                rule6_written_is_told_before_the_sync
                rule7_no_setting_is_told_before_its_sync;
            delivery:
                c01_no_caller_hears_accepted_before_its_job_is_durable
                c03_a_result_that_was_published_but_not_acknowledged_is_there_once
                c04_no_acknowledgement_without_a_durable_result
                c04_a_lease_that_the_power_cut_took_back_is_given_again
                c04_a_failed_sync_acknowledges_nothing_and_ends_the_node;
            content:
                c24_what_no_append_can_hold_is_refused_with_the_limit;
            backpressure:
                c31_a_slow_medium_refuses_new_work_and_holds_a_bounded_amount
                c31_a_full_medium_refuses_new_work_and_takes_outcomes;
            lifecycle:
                c40_a_repeat_of_a_submit_that_found_no_room_is_a_new_submit;
            children:
                a_submit_that_meets_a_child_in_flight_is_answered;
            many:
                one_of_many_that_no_append_can_hold_is_refused_alone
                many_that_found_no_room_are_new_when_they_come_again
                many_are_accepted_after_their_sync_or_not_at_all;
        }
    };
}

mod memory {
    use crate::harness::Memory;

    every_bus!(Memory);
}

mod log {
    use crate::sim_log::SimLog;

    every_bus!(SimLog);
    buses_that_outlive_their_process!(SimLog);
    buses_on_a_faulty_medium!(SimLog);
}

/// The log bus as the server runs it: a real directory, and the threads that do the I/O.
mod log_in_a_directory {
    use crate::dir_log::DirLog;

    tests! { DirLog:
        rules:
            rule3_after_a_restart_every_unsettled_job_arrives_again_in_order_before_ready;
        delivery:
            c01_every_job_is_processed_once_and_every_caller_gets_its_own_result
            c02_a_dead_worker_loses_nothing_and_what_it_finished_is_not_run_again
            c02_a_dead_node_loses_nothing_and_what_was_finished_is_not_run_again
            c05_a_settle_whose_answer_was_lost_is_a_duplicate
            c05_a_poll_repeated_after_a_restart_gets_the_same_batch;
    }
}
