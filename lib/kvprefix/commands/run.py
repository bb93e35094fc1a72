"""``kvprefix run``: write a report folder's data files and figures, without notebooks."""

from kvprefix.commands.options import add_csv_safe, add_parameters, read_parameters, read_path, tell_counts
from kvprefix.files.compiler import load_compiler
from kvprefix.files.extras import need
from kvprefix.files.paths import hold_folder, tell

HELP = "write a report folder's data files and figures, without notebooks"


def add_options(parser):
    """Add what the command takes."""
    add_parameters(parser)
    parser.add_argument("--output-dir", required=True, type=read_path, help="the report folder")
    parser.add_argument("--skip-visualization", action="store_true", help="write no figures")
    text = "also write the tables, and each trace with its tokens, as Parquet"
    parser.add_argument("--parquet", action="store_true", help=text)
    add_csv_safe(parser)


def call(options):
    """Analyse a workload and write its files and figures."""
    load_compiler()
    parameters = read_parameters(options)
    from kvprefix.files.paths import check_output_folder
    from kvprefix.studies.sharing import analyse_mode, stamp_timing, write_mode
    from kvprefix.traces.workload import MODES, load_workload, make_trace

    check_output_folder(options.output_dir)
    if not options.skip_visualization:
        need("report")
    workload = load_workload(parameters)
    tell_counts(workload)
    with hold_folder(options.output_dir):
        results, stamps = {}, stamp_timing(workload)
        for mode in MODES:  # what is wrong with its times shows up before anything is written
            make_trace(workload, mode)
        for mode in MODES:
            result = analyse_mode(workload, mode, stamps)
            write_mode(result, workload, options.output_dir, parquet=options.parquet)
            if not options.skip_visualization:
                results[mode] = result
            del result
        if not options.skip_visualization:
            from kvprefix.report.plots.sharing import draw_figures

            draw_figures(results, options.output_dir)
    tell(f"results are in {options.output_dir}")
