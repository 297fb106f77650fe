//! Properties of lists of integers and of arbitrary bytes.

use etf::{Checked, encode, int, list, read_each, read_i64};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_list_of_integers_survives_encoding(numbers in vec(-300_i64..300, 0..40)) {
        let bytes = encode(&list(numbers.iter().map(|number| int(*number)))).expect("encodes");
        let back = Checked::whole(&bytes).expect("passes the check").decode().expect("decodes");
        let read = read_each(&back, "numbers", 100, |element| read_i64(element, "number")).expect("a list");
        prop_assert_eq!(read, numbers);
    }

    /// Arbitrary bytes that begin like a term reach deep into the check. What passes decodes without a panic.
    #[test]
    fn any_bytes_get_an_answer(
        tags in vec(prop_oneof![
            Just(97_u8), Just(98), Just(70), Just(106), Just(118), Just(119), Just(107), Just(109), Just(77), Just(110), Just(111),
            Just(88), Just(89), Just(120), Just(90), Just(113), Just(104), Just(105), Just(108), Just(116), 0..=8_u8, any::<u8>(),
        ], 0..200)
    ) {
        let mut bytes = vec![131];
        bytes.extend(tags);
        if let Ok((term, rest)) = Checked::first(&bytes) {
            prop_assert_eq!(term.as_bytes().len() + rest.len(), bytes.len());
            let _either = term.decode();
        }
    }
}
