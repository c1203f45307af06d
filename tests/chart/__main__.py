"""python -m tests.chart: write the golden renders anew, after a change of the chart that is meant."""

from tests.chart.charts import GOLDEN, value_files, write_golden

write_golden()
print(f"{GOLDEN}: {', '.join(value_files())}")
