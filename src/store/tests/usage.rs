//! Accounting of what is alive, against a slow model; the carry rule; the bound.

use proptest::prelude::*;

use super::*;

fn disk(segments: u64, segments_max: u64) -> Disk {
    Disk { segments, capacity: 1000, segments_max }
}

#[test]
fn room_is_kept_for_the_end_of_every_task() {
    assert_eq!((finish_bytes(0), finish_bytes(1), finish_bytes(6)), (320, 192, 512));
    assert_eq!(finish_bytes(u32::MAX), finish_bytes(8));
    let mut usage = Usage::default();
    let disk = disk(2, 10);
    assert!(usage.fits(&disk, 7000, 0) && !usage.fits(&disk, 7001, 0));
    assert!(usage.fits(&disk, 6000, 1000) && !usage.fits(&disk, 6000, 1001));
    usage.add(1, 960, 500);
    assert!(usage.fits(&disk, 5500, 0) && !usage.fits(&disk, 5501, 0));
    usage.remove(1, 960, 500);
    assert!(usage.fits(&disk, 7000, 0));
}

#[test]
fn long_records_take_the_room_that_they_leave_unused() {
    let usage = Usage::of(1000);
    let taken: Vec<u64> = [60, 293, 294, 460, 461, 960, 5000].map(|len| usage.taken(len)).to_vec();
    assert_eq!(taken, [100, 333, 500, 500, 1000, 1000, 5040]);
    assert_eq!(Usage::default().taken(461), 501);
}

#[test]
fn a_log_is_carried_when_it_is_twice_what_is_alive_or_the_bound_is_near() {
    let mut usage = Usage::default();
    assert_eq!(usage.carry_wanted(&disk(4, 100)), None);
    assert_eq!(usage.carry_wanted(&disk(5, 100)), Some(Carry::Long));
    usage.add(1, 2500 - FRAME_BYTES, 0);
    assert_eq!(usage.carry_wanted(&disk(10, 100)), None);
    assert_eq!(usage.carry_wanted(&disk(11, 100)), Some(Carry::Long));
    assert_eq!(usage.carry_wanted(&disk(7, 10)), None, "room for three more segments");
    assert_eq!(usage.carry_wanted(&disk(8, 10)), Some(Carry::Near(5500)));
    usage.add(2, 4600 - FRAME_BYTES, 0);
    assert_eq!(usage.carry_wanted(&disk(8, 10)), None, "near the bound, and most is alive");
}

proptest! {
    #[test]
    fn the_sums_are_those_of_a_list(steps in proptest::collection::vec((any::<bool>(), 0_u64..8, 0_u64..500, 0_u32..20), 1..200)) {
        let mut usage = Usage::default();
        let mut model: Vec<(u64, u64, u64)> = Vec::new();
        for (add, segment, len, max) in steps {
            if add || model.is_empty() {
                usage.add(segment, len, finish_bytes(max));
                model.push((segment, len, finish_bytes(max)));
            } else {
                let (segment, len, finish) = model.swap_remove(len as usize % model.len());
                usage.remove(segment, len, finish);
            }
            prop_assert_eq!(usage.count(), model.len() as u64);
            prop_assert_eq!(usage.bytes(), model.iter().map(|m| m.1 + FRAME_BYTES).sum::<u64>());
            prop_assert_eq!(usage.finish, model.iter().map(|m| m.2).sum::<u64>());
            prop_assert_eq!(usage.first_live(), model.iter().map(|m| m.0).min());
            for segment in 0..8 {
                prop_assert_eq!(usage.count_in(segment), model.iter().filter(|m| m.0 == segment).count() as u64);
            }
        }
        usage.remove(99, 1, 1);
        prop_assert_eq!(usage.count(), model.len() as u64);
    }
}
