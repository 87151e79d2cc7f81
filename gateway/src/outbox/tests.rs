use proptest::prelude::*;

use super::*;

/// Returns a frame whose bytes depend on its number and on their position.
fn numbered(number: usize, length: usize) -> Bytes {
    (0..length).map(|index| (number * 31 + index * 7) as u8).collect()
}

#[test]
fn frames_that_are_not_partly_written_are_dropped() {
    let outbox = Outbox::default();
    outbox.retain_partly_written();
    assert_eq!(outbox.bytes(), 0);
    outbox.push([numbered(1, 10), numbered(2, 20)].into_iter(), 0, 4);
    assert_eq!((outbox.bytes(), outbox.stalled_since_s()), (30 + 2 * FRAME_OVERHEAD_BYTES, Some(4)));
    outbox.retain_partly_written();
    assert_eq!((outbox.bytes(), outbox.stalled_since_s()), (0, None));
    outbox.push([numbered(1, 10), numbered(2, 20)].into_iter(), 9, 4);
    outbox.retain_partly_written();
    assert_eq!((outbox.bytes(), outbox.stalled_since_s()), (1 + FRAME_OVERHEAD_BYTES, Some(4)));
}

proptest! {
    #[test]
    fn an_outbox_has_what_was_pushed_except_what_was_written(
        steps in prop::collection::vec((prop::collection::vec(1_usize..50, 1..5), any::<prop::sample::Index>()), 1..20),
        first_written in any::<prop::sample::Index>(),
    ) {
        let outbox = Outbox::default();
        let mut model = Vec::new();
        for (index, (lengths, written)) in steps.into_iter().enumerate() {
            let frames: Vec<Bytes> = lengths.into_iter().map(|length| numbered(index, length)).collect();
            let already_written = if index == 0 { first_written.index(frames[0].len()) } else { 0 };
            model.extend_from_slice(&frames.concat()[already_written..]);
            outbox.push(frames.into_iter(), already_written, 0);
            let mut slot = outbox.waiting.borrow_mut();
            let waiting = slot.as_mut().expect("frames are queued");
            // Like `flush`, but never everything, which would empty the outbox.
            let written = written.index(model.len());
            waiting.advance(written);
            model.drain(..written);
            let rest: Vec<u8> = waiting.frames.iter().flatten().copied().skip(waiting.written).collect();
            prop_assert_eq!(waiting.bytes, model.len() + waiting.frames.len() * FRAME_OVERHEAD_BYTES);
            prop_assert_eq!(&rest, &model);
            prop_assert!(waiting.written < waiting.frames[0].len());
        }
    }
}
