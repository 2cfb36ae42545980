use super::*;

fn plan() -> (FieldPlan, SlotId) {
    let mut plan = FieldPlan::new();
    let slot = plan.want(&["request", "path"]);
    (plan, slot)
}

#[test]
fn a_wanted_field_is_found() {
    let (plan, slot) = plan();
    let decoder = plan.build();
    let mut scratch = DecodeScratch::default();
    let record = decoder.decode(b" {\"request\":{\"path\":\"a\\u0041\"}}\r\n", &mut scratch).unwrap();
    assert_eq!(record.slot(slot), Slot::Str("aA"));
    assert_eq!(record.bytes(), b"{\"request\":{\"path\":\"a\\u0041\"}}");
}
