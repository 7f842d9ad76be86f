"""Kafka Connect's documented rules of data, transforms and errors: which test holds each.

A rule is named in a few words. Behind it stands ``folder/file::test``, without ``test_`` and
``.py``, or, where it cannot apply here, the reason in parentheses.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parent.parent

KAFKA: Final = "(there is no Kafka between source and sink: the journal is)"
AVRO: Final = "(Avro is not there, and is refused by name)"
REGISTRY: Final = "(a schema registry is for Avro, Protobuf and JSON Schema, which are not there)"

ROWS: Final = """
# Data model
INT8 to INT64: converters/facts_model::whole_numbers_have_a_width
FLOAT32, FLOAT64: converters/facts_model::fractions_are_called_float_and_double_in_json_and_single_ones_print_short
BOOLEAN, STRING, BYTES: converters/facts_model::booleans_strings_and_bytes_are_bool_str_and_bytes
ARRAY, MAP, STRUCT: converters/facts_model::arrays_maps_and_structs_are_validated_all_the_way_down
Decimal: converters/facts_model::a_decimal_is_the_bytes_of_its_unscaled_number_as_short_as_can_be
Decimal of another scale: converters/facts_model::a_decimal_of_another_scale_is_refused_not_rescaled
Date: converters/facts_model::a_date_is_days_since_the_epoch_and_midnight
Time: converters/facts_model::a_time_is_milliseconds_of_the_first_day
Timestamp: converters/facts_model::a_timestamp_is_milliseconds_since_the_epoch
Debezium's logical types: converters/facts_model::debeziums_logical_names_are_named_schemas_over_their_base_types
Struct, put: converters/facts_model::put_validates_type_and_null_at_once
Struct, get: converters/facts_model::get_gives_the_default_of_a_null_field_and_get_without_default_does_not
Struct, equality: converters/facts_model::structs_are_the_same_where_schemas_and_values_are
Record in a source and in a sink: runtime/chain::in_a_source_a_record_has_neither_offset_nor_time
# JsonConverter
schemas.enable: converters/facts_json::schemas_enable_puts_an_envelope_around_everything_by_default
schemas.cache.size: converters/facts_json::schemas_cache_size_bounds_what_is_kept
decimal.format: converters/facts_json::decimal_format_writes_numbers_in_any_spelling_of_numeric
replace.null.with.default: converters/facts_json::replace_null_with_default_writes_and_reads_defaults_for_nulls
schema.content: converters/facts_json::schema_content_is_the_schema_of_bare_payloads
schema.content without schemas: converters/facts_json::schema_content_is_ignored_without_schemas
neither schema nor value, written: converters/facts_json::without_schema_and_value_there_are_no_bytes
null of a schema: converters/facts_json::a_null_of_a_schema_is_no_tombstone
value without schema: converters/facts_json::a_value_without_schema_has_a_null_for_it
schema and value: converters/facts_json::a_value_with_a_schema_stands_beside_it
order of a schema's members: converters/facts_json::the_example_of_the_facts_sheet_is_written_byte_for_byte
output: converters/facts_json::output_is_compact_utf_8_with_every_field_in_order
bytes: converters/facts_json::bytes_are_base64_with_padding
float, double: converters/facts_json::numbers_that_json_does_not_know_are_strings
map: converters/facts_json::maps_are_objects_where_their_keys_are_strings_and_pairs_where_not
decimals as numbers: converters/facts_json::numeric_decimals_keep_their_zeros_and_may_have_an_exponent
null in a required field: converters/facts_json::a_null_in_a_required_field_without_default_is_refused
unknown class: converters/facts_json::a_class_that_json_has_nothing_for_is_refused_without_a_schema
no bytes, read: converters/facts_json::no_bytes_are_neither_schema_nor_value
exactly schema and payload: converters/facts_json::with_schemas_enabled_exactly_the_two_members_are_taken
bad JSON: converters/facts_json::broken_json_is_refused
schemaless numbers: converters/facts_json::numbers_without_schema_are_longs_that_wrap_and_doubles
schemaless object, array: converters/facts_json::objects_and_arrays_without_schema_are_maps_and_lists
attributes of other types: converters/facts_json::a_schemas_attributes_of_other_types_are_passed_over_but_not_its_parameters
missing struct field: converters/facts_json::a_missing_field_is_a_null
extra payload fields: converters/facts_json::fields_that_the_schema_does_not_have_are_passed_over
Decimal, read: converters/facts_json::decimals_are_read_from_numbers_and_base64_whatever_decimal_format_says
unknown type: converters/facts_json::an_unknown_type_and_none_are_refused
numbers and booleans of another type: converters/facts_json::another_type_is_nought_or_false_and_widths_wrap
strings of another type: converters/facts_json::a_string_of_another_type_is_null_and_then_refused_where_it_is_required
containers of another kind: converters/facts_json::maps_and_structs_of_another_kind_are_refused
leading zeros: converters/facts_json::leading_zeros_are_accepted
as header converter: converters/facts_json::headers_follow_the_same_rules
any text, beside Connect: connect/json::any_text_is_read_or_refused_as_connect_does
rows of the journal, beside Connect: connect/json::rows_take_a_shorter_path_to_the_bytes_that_connect_writes
# Other converters
StringConverter: converters/facts_converters::a_string_is_the_java_text_of_any_value
ByteArrayConverter: converters/facts_converters::a_byte_array_is_itself_and_nothing_else
Short, Integer, LongConverter: converters/facts_converters::whole_numbers_are_big_endian
Float, DoubleConverter: converters/facts_converters::fractions_are_ieee_big_endian
BooleanConverter: converters/facts_converters::a_boolean_is_one_byte
SimpleHeaderConverter, written: converters/facts_converters::a_header_is_text_quoted_inside_only
SimpleHeaderConverter, inferred: converters/facts_converters::the_type_of_a_header_is_inferred
all of these as header converters, beside Connect: connect/converters::headers_are_written_and_read_as_values_are
AvroConverter: (AVRO)
schema registry: (REGISTRY)
ProtobufConverter, JsonSchemaConverter: (REGISTRY)
# Configuration of transforms
order: transforms/chain::steps_are_applied_in_the_order_of_the_list
a null ends the chain: runtime/tolerance::a_null_result_drops_the_record_and_is_no_error
predicate, negate: transforms/chain::a_predicate_decides_whether_a_step_is_applied
unknown predicate, negate alone, aliases, names of classes: transforms/chain::a_wrong_chain_is_refused_with_connects_text
all of validation, beside Connect: transforms/validation::a_chain_is_validated_as_a_worker_of_connect_does
schemas rewritten: transforms/fine_print::a_changed_struct_keeps_its_name_and_some_keep_that_it_is_optional
schemas cached: transforms/rules::a_plan_is_made_once_for_each_of_many_tables_and_no_end_of_them_is_kept
wrong shape: transforms/fine_print::what_is_no_map_and_no_struct_is_refused_with_the_purpose
third-party transforms: transforms/chain::other_peoples_transforms_are_refused_with_what_is_there
chains, beside Connect: transforms/generated::a_chain_does_as_connects
# Transforms; all are compared with Connect's, too
of key or value, beside Connect: transforms/generated::a_transform_of_key_or_value_does_as_connects
of whole records, beside Connect: transforms/generated::a_transform_of_whole_records_does_as_connects
options and defaults: transforms/chain::every_transform_declares_what_connects_declares
Cast: transforms/rules::cast_wraps_and_drops_doc_and_keeps_the_struct
Cast, types: transforms/fine_print::a_field_is_cast
Cast, refusals: transforms/fine_print::what_cannot_be_cast_is_refused
Cast, spec: transforms/fine_print::a_wrong_spec_is_refused
Cast, whole value: transforms/rules::cast_of_a_whole_value_keeps_its_name
Cast, schemaless: transforms/rules::cast_without_a_schema_makes_absent_fields_null
DropHeaders: transforms/rules::drop_headers_removes_every_header_of_a_name
ExtractField: transforms/rules::extract_field_takes_value_and_schema
ExtractField, unknown field: transforms/rules::extract_field_of_an_unknown_field_is_an_illegal_argument
ExtractField, V2: transforms/fine_print::a_path_descends_by_dots_and_quotes_by_backticks
Filter: transforms/rules::filter_drops_every_record
Flatten: transforms/rules::flatten_joins_names_and_hands_optionality_down
Flatten, map: transforms/rules::flatten_refuses_a_map_in_a_struct
Flatten, duplicates: transforms/fine_print::flatten_refuses_a_name_that_is_there_twice
HeaderFrom: transforms/rules::header_from_gives_headers_the_fields_schema
HeaderFrom, null: transforms/rules::header_from_refuses_null_and_unknown_fields
HoistField: transforms/rules::hoist_field_wraps_null_too
InsertField: transforms/rules::insert_field_appends_in_a_fixed_order
InsertField, offset in a source: transforms/rules::insert_field_knows_no_offset_in_a_source
InsertField, required: transforms/fine_print::a_required_field_of_nothing_is_found_by_the_converter
InsertHeader: transforms/rules::insert_header_adds_and_infers_the_type
MaskField: transforms/rules::mask_field_keeps_null_and_refuses_structs
MaskField, replacement: transforms/rules::mask_field_takes_a_replacement_for_numbers_and_texts
MaskField, Decimal: transforms/fine_print::a_masked_decimal_is_zero_of_no_scale
MaskField, empty replacement: transforms/fine_print::a_mask_is_not_empty
RegexRouter: transforms/rules::regex_router_changes_the_topic_and_not_the_partition
RegexRouter, Java's replacements: transforms/javaregex::a_replacement_reads_as_in_java
ReplaceField: transforms/rules::replace_field_filters_by_the_old_name_and_then_renames
ReplaceField, duplicates: transforms/rules::replace_field_onto_a_name_that_is_there_is_a_schema_error
SetSchemaMetadata: transforms/rules::set_schema_metadata_renames_the_schema_of_null_too
TimestampConverter: transforms/rules::timestamp_converter_makes_each_kind
TimestampConverter, refusals: transforms/rules::timestamp_converter_refuses_what_is_no_time
TimestampConverter, lenient: transforms/fine_print::a_time_is_read_leniently_and_loses_what_is_below_a_millisecond
TimestampConverter, format: transforms/fine_print::a_time_as_a_text_needs_a_format
TimestampRouter: transforms/rules::timestamp_router_writes_the_records_own_time
ValueToKey: transforms/rules::value_to_key_takes_fields_in_the_order_of_the_option
HasHeaderKey, RecordIsTombstone, TopicNameMatches: transforms/rules::a_predicate_holds_or_not
predicates, beside Connect: transforms/generated::a_predicate_says_what_connects_says
# Configuration
keys of every connector, beside Connect: connect/configuration::every_connectors_keys_are_declared_as_connect_declares_them
refusals of a sink's keys, beside Connect: connect/configuration::a_sinks_keys_are_refused_with_connects_texts
options follow the converter's class: runtime/parts::a_converters_options_follow_its_class
STRING, LIST, BOOLEAN and numbers, beside Connect: connect/configuration::a_value_is_read_as_connect_reads_it
properties, beside Java: connect/configuration::properties_are_read_as_java_reads_them
regular expressions, beside Java: transforms/javaregex::an_expression_matches_what_it_matches_in_java
what Python's engine lacks: transforms/javaregex::what_pythons_engine_lacks_is_named_with_its_place
partitioner: (KAFKA)
task config: runtime/rest::create_shows_its_location_and_its_tasks
placeholders, beside Connect: connect/configuration::placeholders_are_found_where_connect_finds_them
file, dir, env, beside Kafka: connect/configuration::a_provider_of_kafkas_gives_what_kafka_gives
allowed.paths: config/config_providers::what_is_not_allowed_or_not_there_is_an_error_that_names_the_key
allowlist.pattern: config/config_providers::only_listed_variables_are_read
other people's providers: config/config_providers::a_wrong_declaration_is_refused
not recursive: config/config_providers::no_cycle_can_arise_since_nothing_is_resolved_twice
raw text is stored and shown: runtime/dlq_command::a_tasks_placeholders_are_shown_and_stored_as_they_were_written
what a provider gave is not: runtime/placeholders::a_resolved_placeholder_is_in_nothing_that_is_shown_or_kept
placeholders in the worker's file: config/worker_keys::a_workers_file_may_hold_placeholders_and_connectors_inherit_theirs_as_written
time to live: (file, dir and env know none)
# Error handling
TRANSFORMATION and converters, any exception: runtime/tolerance::any_error_of_a_transform_or_converter_is_tolerated
TRANSFORMATION in a source: runtime/source_chain::a_record_that_fails_is_left_out_and_its_neighbours_are_stored
converters in a sink: runtime/dead_letters::what_a_converter_refuses_is_a_letter_of_its_stage
converters in a source: (the journal takes typed records: sinks convert)
TASK_PUT by a reporter: runtime/dead_letters::the_rows_that_a_target_refuses_are_letters_and_all_others_are_there
TASK_PUT, an exception: runtime/sink_loop::a_rejecting_target_ends_the_task_and_stores_nothing
TASK_PUT, a retriable one: runtime/sink_loop::a_target_out_of_reach_gets_the_same_rows_again
TASK_POLL, an exception: runtime/source_loop::an_error_of_the_task_ends_the_loop_and_keeps_what_was_polled
TASK_POLL, a retriable one: runtime/worker::a_server_that_is_away_is_waited_for
KAFKA_PRODUCE: (KAFKA)
KAFKA_CONSUME: (KAFKA)
errors of the machine: runtime/tolerance::what_is_an_error_of_the_machine_is_never_tolerated
the operator, beside Connect: connect/errors::an_operation_is_tried_skipped_and_counted_as_connect_does
errors.retry.timeout 0: runtime/tolerance::without_a_timeout_nothing_is_tried_again
errors.retry.timeout: runtime/tolerance::a_retriable_error_is_tried_again_until_it_is_mended
errors.retry.timeout, retriable only: runtime/tolerance::only_a_retriable_error_is_tried_again
errors.retry.delay.max.ms: runtime/tolerance::delays_double_from_300_ms_and_are_random_above_the_most
delay, clipped: runtime/tolerance::a_delay_ends_at_the_deadline
delay, interrupted, sink: runtime/dead_letters::a_stop_in_a_retry_delivers_nothing_and_moves_nothing
delay, interrupted, source: runtime/source_chain::a_stop_ends_the_wait_for_another_attempt_and_the_batch_is_read_again
errors.tolerance none, sink: runtime/dead_letters::tolerance_none_fails_the_task_and_the_record_is_a_letter_all_the_same
errors.tolerance none, source: runtime/source_chain::without_tolerance_the_task_ends_before_the_batch_that_fails
errors.tolerance none, status: runtime/worker::an_error_that_waiting_does_not_mend_is_never_retried
non-tolerable class, text: (no stage is left at which Connect would not tolerate an exception)
exhausted retriable error: runtime/tolerance::a_retriable_error_that_stays_obeys_the_tolerance
reporters always run: runtime/tolerance::reporters_are_told_whatever_the_tolerance_is
commit behind the dead letter: runtime/dead_letters::a_letter_is_durable_before_the_position_passes_it
Exiting WorkerSinkTask: runtime/worker::a_bug_in_a_task_touches_nobody_else
null result: runtime/chain::a_block_that_a_filter_empties_still_moves_the_position
no reporter without a place: runtime/dead_letters::without_a_queue_the_first_refused_row_ends_the_task
a reporter with the log alone: runtime/dead_letters::the_log_alone_is_a_place_to_report_refused_rows_to
dead letter, topic created: (KAFKA)
dead letter, original bytes: runtime/dead_letters::the_original_bytes_are_the_connectors_converters
dead letter and log line, beside Connect: connect/errors::headers_and_log_lines_are_connects
dead letter, record before the chain: runtime/dead_letters::a_letter_is_the_record_before_the_chain_has_renamed_it
dead letter, delete and tombstone: runtime/dead_letters::a_delete_and_its_tombstone_are_two_records
dead letter, headers: runtime/dead_letters::a_letter_is_the_consumed_record_with_connects_headers
dead letter, message of nothing: runtime/dead_letters::an_error_without_a_message_has_none
dead letter, context headers off: runtime/dead_letters::without_context_headers_they_are_kept_beside_the_record
sources have none: config/connector_names::a_source_has_no_dead_letters
log line: runtime/tolerance::the_log_line_names_task_stage_and_class
log line, sink's record: runtime/tolerance::with_messages_a_sinks_line_has_the_records_place_and_never_its_values
log line, source's record: runtime/source_chain::a_transform_that_fails_for_every_record_is_logged_and_the_position_moves_on
log line, level and exception: runtime/tolerance::every_failure_is_logged_at_level_error_with_its_exception
connector context: runtime/worker::a_target_out_of_reach_is_waited_for
"""  # noqa: E501 - one rule a line
REASONS: Final = {"(KAFKA)": KAFKA, "(AVRO)": AVRO, "(REGISTRY)": REGISTRY}


def rows() -> dict[str, str]:
    lines = [line for line in ROWS.strip().splitlines() if not line.startswith("#")]
    found = dict(line.split(": ", 1) for line in lines)
    assert len(found) == len(lines)
    return found


@pytest.mark.parametrize("rule", rows())
def test_a_rule_of_connects_is_held_by_a_test_that_is_there(rule: str) -> None:
    held = rows()[rule]
    if held.startswith("("):
        assert REASONS.get(held, held).endswith(")")
        return
    place, _, name = held.partition("::")
    folder, _, file = place.partition("/")
    text = (TESTS / folder / f"test_{file}.py").read_text()
    assert re.search(rf"^def test_{name}\(", text, re.MULTILINE), f"no test test_{name} in {place}"
