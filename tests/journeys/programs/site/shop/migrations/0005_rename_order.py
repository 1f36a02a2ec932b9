from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("shop", "0004_alter_status"),)
    operations = (migrations.RenameModel("Order", "Purchase"),)
